"""The engine transformers on a GPU, where vLLM is not there to cover the GPU.

Skipped, with the reason, where there is no GPU, or where vLLM is.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from codealign.inference.engines.base import Completion, GenerationRequest, Sample, Sampling
from codealign.inference.engines.transformers.engine import TransformersEngine
from codealign.inference.engines.transformers.loading import load_model
from codealign.inference.engines.transformers.options import EngineOptions

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
    pytest.mark.skipif((ROOT / ".venv-vllm").exists(), reason="vLLM is here: tests/gpu/test_vllm.py covers the GPU"),
]


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    spec = importlib.util.spec_from_file_location("conftest", ROOT / "services/inference/tests/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = module._make_model(
        tmp_path_factory.mktemp("models") / "small", hidden_size=512, max_position_embeddings=2048
    )
    options = EngineOptions(slots=8, threads=2, kv_cache_bytes=2**30, prefix_cache_bytes=2**28)
    loaded = load_model(str(folder), cache_folder=tmp_path_factory.mktemp("cache"), options=options)
    engine = TransformersEngine(loaded, options)
    yield engine
    await engine.close()


async def complete(engine: TransformersEngine, sampling: Sampling, *seeds: int) -> list[Completion]:
    samples = tuple(Sample(at, seed) for at, seed in enumerate(seeds))
    found = [one async for one in engine.generate(GenerationRequest("def add(a, b):", samples, sampling))]
    return sorted(found, key=lambda completion: completion.attempt)


async def test_the_model_is_on_the_gpu(engine: TransformersEngine) -> None:
    assert (engine.model.device, engine.model.dtype) == ("cuda:0", "bfloat16")


async def test_a_seed_draws_the_same_again(engine: TransformersEngine) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=64)
    [first] = await complete(engine, sampling, 5)
    [again] = await complete(engine, sampling, 5)
    [other] = await complete(engine, sampling, 6)
    assert first.text == again.text != other.text


async def test_a_full_batch_finishes(engine: TransformersEngine) -> None:
    completions = await complete(engine, Sampling(temperature=1.0, max_tokens=128), *range(16))
    assert len(completions) == 16
    assert all(completion.generated_tokens > 0 for completion in completions)
