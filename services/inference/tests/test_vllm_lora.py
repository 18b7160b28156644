"""A base and what was tuned from it with LoRA share one vLLM engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
import transformers

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.common import adapters
from codealign.common.model_identity import revision

from . import vllm_server as vllm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024}
PROMPT = "### Instruction\nWrite a function that adds.\n### Response\ndef add(a, b):\n    return a + b\n\n" * 4
TOKENS = 24


def tune(base: Path, folder: Path, *, rank: int = 8, seed: int = 1) -> Path:
    """Write a model that differs from its base by an adapter, as the trainer does."""
    import peft

    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    tuned = peft.get_peft_model(model, lora)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    beside = folder / adapters.FOLDER
    tuned.save_pretrained(beside)
    tuned.merge_and_unload().save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (base / file).is_file():
            shutil.copy(base / file, folder)
            shutil.copy(base / file, beside)
    cache = folder.parent / "cache"
    adapters.write_belonging(beside, "tiny", revision(base, cache), revision(folder, cache))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    """A folder with the base, two models tuned from it, one with a higher rank, and one tuned from another base."""
    vllm.require_environment()
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "tiny", **SIZES)
    make_model(folder / "other", seed=7, **SIZES)
    tune(folder / "tiny", folder / "tuned")
    tune(folder / "tiny", folder / "again", seed=2)
    tune(folder / "tiny", folder / "high", rank=32)
    tune(folder / "other", folder / "stranger")
    return folder


@pytest.fixture(scope="module")
def stub(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    work = tmp_path_factory.mktemp("vllm")
    more = {"vllm_max_loras": 1, "vllm_max_lora_rank": 16}
    with vllm.started(work, models / "tiny", slots=4, drain_seconds=5, **more) as process:
        ports = vllm.ports(work, process)
        with grpc.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
            yield InferenceServiceStub(channel)


def greedy(stub: Any, model: str, prompt: str = PROMPT) -> pb.Completion:
    sampling = pb.SamplingParameters(max_tokens=TOKENS)
    request = pb.GenerateRequest(model=model, prompt=prompt, samples=[pb.Sample()], sampling=sampling)
    [answer] = stub.Generate(request, timeout=120)
    completion: pb.Completion = answer.completion
    return completion


def expected(folder: Path) -> str:
    """Return the greedy text of a model's own weights, by Transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)
    text: str = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    return text.rstrip("\ufffd")


def load(stub: Any, source: Path, name: str = "", demanded: str = "") -> pb.Model:
    request = pb.LoadModelRequest(source=str(source), name=name, expected_revision=demanded)
    model: pb.Model = stub.LoadModel(request, timeout=300).model
    return model


def refusal(stub: Any, source: Path) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        load(stub, source, name="refused")
    error: Any = caught.value
    return error.code(), error.details()


def names(stub: Any) -> list[str]:
    return [model.name for model in stub.ListModels(pb.ListModelsRequest()).models]


def test_base_and_tuned_share_an_engine_and_each_writes_its_own_text(stub: Any, models: Path, tmp_path: Path) -> None:
    of_base, of_tuned = expected(models / "tiny"), expected(models / "tuned")
    assert of_base != of_tuned
    first = greedy(stub, "tiny")
    tuned = load(stub, models / "tuned", demanded=revision(models / "tuned", tmp_path))
    assert (tuned.base, tuned.engine, tuned.device) == ("tiny", "vllm", "cpu")
    assert tuned.size_bytes < stub.GetModel(pb.GetModelRequest(name="tiny")).model.size_bytes

    # The prompt is cached for the base. If adapters were mixed in the cache, its keys and values would be used here.
    cold, warm = greedy(stub, "tuned"), greedy(stub, "tuned")
    assert (first.text, cold.text, warm.text) == (of_base, of_tuned, of_tuned)
    assert (cold.cached_prompt_tokens, warm.cached_prompt_tokens > 0) == (0, True)
    again = greedy(stub, "tiny")
    assert again.text == of_base
    assert again.cached_prompt_tokens > 0
    assert stub.GetLoad(pb.GetLoadRequest()).slots == 4, "an adapter adds no slots"

    code, message = refusal(stub, models / "again")
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "tiny has 1 LoRA adapters (tuned), the most that CODEALIGN_INFERENCE_VLLM_MAX_LORAS allows" in message

    stub.UnloadModel(pb.UnloadModelRequest(name="tuned"))
    assert names(stub) == ["tiny"]
    assert greedy(stub, "tiny").text == of_base
    assert load(stub, models / "again", name="tuned").base == "tiny"
    assert greedy(stub, "tuned").text == expected(models / "again"), "not the first one's from the cache"
    stub.UnloadModel(pb.UnloadModelRequest(name="tuned"))


def test_an_adapter_that_the_engine_cannot_have_is_refused_with_what_to_do(
    stub: Any, models: Path, tmp_path: Path
) -> None:
    code, message = refusal(stub, models / "high")
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "has rank 32, and tiny was loaded for at most 16: raise CODEALIGN_INFERENCE_VLLM_MAX_LORA_RANK" in message

    code, message = refusal(stub, models / "stranger" / "adapter")
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"of tiny at revision {revision(models / 'other', tmp_path)}, and this server has tiny" in message
    assert "load that base first" in message

    broken = Path(shutil.copytree(models / "tuned" / "adapter", tmp_path / "broken"))
    content = (broken / adapters.WEIGHTS).read_bytes()
    (broken / adapters.WEIGHTS).write_bytes(content[:-100])
    code, message = refusal(stub, broken)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "is damaged: its digest is not the one in codealign.json; copy it again" in message

    config = json.loads((models / "tuned" / "adapter" / adapters.CONFIG).read_text())
    odd = Path(shutil.copytree(models / "tuned" / "adapter", tmp_path / "odd"))
    (odd / adapters.CONFIG).write_text(json.dumps({**config, "use_dora": True}))
    code, message = refusal(stub, odd)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "vLLM cannot load the LoRA adapter" in message
    assert names(stub) == ["tiny"]
    assert greedy(stub, "tiny").text == expected(models / "tiny"), "the engine goes on"


def test_a_base_goes_with_its_adapters(stub: Any, models: Path) -> None:
    assert load(stub, models / "tuned" / "adapter", name="alone").base == "tiny"
    assert names(stub) == ["tiny", "alone"]
    stub.UnloadModel(pb.UnloadModelRequest(name="tiny"))
    assert names(stub) == []
