"""A tiny random Llama with a small byte-level tokenizer, created in a second, and servers over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from codealign.api.inference.v1.inference_pb2_grpc import (
    InferenceServiceStub,
    add_InferenceServiceServicer_to_server,
)
from codealign.common.interceptors import ServerInterceptor
from codealign.inference.engine_opener import EngineOpener
from codealign.inference.engines.base import Engine
from codealign.inference.registry import ModelRegistry
from codealign.inference.servicer import InferenceServicer
from codealign.inference.settings import InferenceSettings

# PyTorch and Transformers are imported by the fixtures that need them, since the fast tests share this file.
if TYPE_CHECKING:
    from codealign.inference.engines.transformers.engine import TransformersEngine
    from codealign.inference.engines.transformers.loading import LoadedModel
    from codealign.inference.engines.transformers.options import EngineOptions

CORPUS = [
    "def add(a, b):\n    return a + b\n",
    "def reverse(text):\n    return text[::-1]\n",
    "### Instruction\nWrite a function.\n### Response\n```python\nassert add(1, 2) == 3\n```\n",
    "größer 你好 for item in items: print(item)\n",
]
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTEXT = 256

Connect = Callable[[Engine], AbstractAsyncContextManager[Any]]


def _make_model(
    folder: Path, *, seed: int = 0, end_tokens: list[int] | None = None, chat: bool = True, **changes: object
) -> Path:
    """Write a model folder; a large initial range makes its distributions peaked, so that greedy texts vary."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        **changes,
    }
    config = transformers.LlamaConfig(
        vocab_size=len(fast), initializer_range=0.25, eos_token_id=0, bos_token_id=None, **sizes
    )
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.eos_token_id = end_tokens or [0]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """Write another model folder."""
    return _make_model


@pytest.fixture(scope="session")
def options() -> EngineOptions:
    """Small sizes, so that every limit is reached."""
    from codealign.inference.engines.transformers.options import EngineOptions

    return EngineOptions(
        slots=4, threads=2, prefill_chunk=16, kv_cache_bytes=2**28, prefix_cache_bytes=2**24, max_waiting=64
    )


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def loaded(model_folder: Path, cache_folder: Path, options: EngineOptions) -> LoadedModel:
    from codealign.inference.engines.transformers.loading import load_model

    return load_model(str(model_folder), dtype="float64", cache_folder=cache_folder, options=options)


@pytest.fixture
async def engine(loaded: LoadedModel, options: EngineOptions) -> AsyncIterator[TransformersEngine]:
    from codealign.inference.engines.transformers.engine import TransformersEngine

    engine = TransformersEngine(loaded, options)
    yield engine
    await engine.close()


@pytest.fixture
def connect() -> Connect:
    """Serve an engine over gRPC with every server's interceptor."""

    @asynccontextmanager
    async def connected(engine: Engine) -> AsyncIterator[Any]:
        models = ModelRegistry(EngineOpener(InferenceSettings()))
        models.add(engine)
        server = grpc.aio.server(interceptors=[ServerInterceptor(60)])
        add_InferenceServiceServicer_to_server(InferenceServicer(models), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield InferenceServiceStub(channel)
        finally:
            await server.stop(0)

    return connected
