"""The vllm engine on a GPU: CUDA, bfloat16, batch invariance, sleep mode, adapters.

Skipped, with the reason, where there is no GPU. Where there is one: `make setup-vllm`, then
`pytest tests/gpu/test_vllm.py`; MODEL is a folder (default: a small random Llama made here). If a warm prefix cache
gives the same tokens as a cold one, that is recorded for this vLLM, GPU and model in PROOFS (default: the file that
servers of this user read), and batch-invariant servers then promise it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.inference.engines.vllm import proofs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TESTS = Path(__file__).parents[2] / "services" / "inference" / "tests"
PROMPTS = ["def add(a, b):", "### Instruction\nReverse a text.\n### Response\n", "for item in items:"]
# Batch-invariant kernels and bfloat16 attention need realistic model sizes.
SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vllm = _module("vllm_server")


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    smi = shutil.which("nvidia-smi")
    if smi is None or subprocess.run([smi, "-L"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no NVIDIA GPU here: nvidia-smi finds none")
    if not vllm.PYTHON.exists():
        pytest.skip("run `make setup-vllm`")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if folder := os.environ.get("MODEL"):
        return Path(folder)
    make: Any = _module("conftest")._make_model
    made: Path = make(tmp_path_factory.mktemp("models") / "small", **SIZES)
    return made


@pytest.fixture(scope="module", params=[True, False], ids=["invariant", "fast"])
def server(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with and without batch invariance, and which one it is."""
    work = tmp_path_factory.mktemp("vllm")
    share = "0.4"  # alongside other work on the same GPU
    settings = {
        "vllm_batch_invariant": str(request.param).lower(),
        "vllm_gpu_memory_utilization": share,
        # The fast server tries both ways to share the GPU; LoRA layers would change the other's promise.
        **({} if request.param else {"vllm_sleep_level": "1", "vllm_max_loras": "1"}),
    }
    with vllm.started(work, model, **settings) as process:
        ports = vllm.ports(work, process)
        with grpc.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
            yield InferenceServiceStub(channel), request.param


def texts(stub: Any, prompt: str, seeds: list[int], temperature: float = 1.0) -> list[str]:
    """Return texts in the order of the seeds."""
    samples = [pb.Sample(attempt=at, seed=seed) for at, seed in enumerate(seeds)]
    sampling = pb.SamplingParameters(temperature=temperature, max_tokens=96)
    answers = stub.Generate(pb.GenerateRequest(prompt=prompt, samples=samples, sampling=sampling), timeout=300)
    found = sorted((answer.completion for answer in answers), key=lambda completion: completion.attempt)
    return [completion.text for completion in found]


def test_the_model_says_where_and_how_it_runs(server: Any) -> None:
    stub, invariant = server
    model = stub.GetModel(pb.GetModelRequest()).model
    assert (model.engine, model.dtype, model.device) == ("vllm", "bfloat16", "cuda:0")
    # The promise needs the comparison below, recorded for this vLLM, GPU and model.
    assert not model.batch_invariant
    assert bool(model.unproved) == invariant


def test_a_seed_draws_the_same_again(server: Any) -> None:
    stub, _ = server
    first = texts(stub, PROMPTS[0], [5])
    assert texts(stub, PROMPTS[0], [5]) == first
    assert texts(stub, PROMPTS[0], [6]) != first


def test_with_batch_invariance_the_batch_does_not_matter(server: Any) -> None:
    stub, invariant = server
    if not invariant:
        pytest.skip("this server has no batch invariance")
    seeds = list(range(64))
    for prompt in PROMPTS:
        together = texts(stub, prompt, seeds)
        assert [texts(stub, prompt, [seed])[0] for seed in seeds[::8]] == together[::8]


def drawn(stub: Any, prompt: str, seeds: list[int]) -> list[pb.Completion]:
    """Return completions in the order of the seeds."""
    samples = [pb.Sample(attempt=at, seed=seed) for at, seed in enumerate(seeds)]
    request = pb.GenerateRequest(
        prompt=prompt, samples=samples, sampling=pb.SamplingParameters(temperature=0.8, max_tokens=128)
    )
    answers = [answer.completion for answer in stub.Generate(request, timeout=300)]
    return sorted(answers, key=lambda completion: completion.attempt)


def test_a_warm_prefix_cache_gives_the_same_as_a_cold_one(server: Any, record_property: Any) -> None:
    """Decide whether a version's manifest may promise the same tokens for this engine.

    A cache hit changes the shape of the prefill, which batch invariance alone does not cover. Cold: prompts that the
    server has never seen, one request at a time, one sample each. Warm: the same requests again.
    """
    stub, invariant = server
    if not invariant:
        pytest.skip("this server has no batch invariance, so nothing is promised")
    prompts = [f"# file {at}\n" + PROMPTS[at % len(PROMPTS)] * 60 for at in range(16)]
    cold = [drawn(stub, prompt, [at])[0] for at, prompt in enumerate(prompts)]
    warm = [drawn(stub, prompt, [at])[0] for at, prompt in enumerate(prompts)]
    shares = [
        (one.cached_prompt_tokens / one.prompt_tokens, two.cached_prompt_tokens / two.prompt_tokens)
        for one, two in zip(cold, warm, strict=True)
    ]
    assert all(before < 0.1 and after > 0.8 for before, after in shares), f"not cold, then warm: {shares}"
    differing = [
        at
        for at, (one, two) in enumerate(zip(cold, warm, strict=True))
        if (one.text, one.generated_tokens) != (two.text, two.generated_tokens)
    ]
    assert not differing, (
        f"{len(differing)} of {len(prompts)} completions differ between a cold and a warm prefix cache (prompts "
        f"{differing}): the manifest must not promise determinism for vLLM with prefix caching"
    )
    setup = setup_of(stub)
    file = Path(os.environ.get("PROOFS") or Path("~/.cache/codealign").expanduser() / proofs.FILE)
    proofs.record(file, setup)
    record_property("detail", f"{len(prompts)} of {len(prompts)} identical: proved for {setup}, written to {file}")


def setup_of(stub: Any) -> proofs.Setup:
    """Return what the running server's proofs hold for."""
    asked = (
        "import vllm; from vllm.platforms import current_platform as here; "
        "found = here.get_device_capability(); print(vllm.__version__, f'{found.major}.{found.minor}')"
    )
    told = subprocess.run([vllm.PYTHON, "-c", asked], capture_output=True, check=True, text=True, timeout=300)
    version, capability = told.stdout.split()[-2:]
    model = stub.GetModel(pb.GetModelRequest()).model
    setup = proofs.Setup(version, capability, model.revision, model.dtype, tensor_parallel=1)
    assert str(setup) in model.unproved, "the server's own description must be the same, or the proof is never found"
    return setup


def test_a_shared_prefix_is_computed_once(server: Any) -> None:
    stub, _ = server
    prefix = PROMPTS[1] * 40
    sampling = pb.SamplingParameters(max_tokens=2)
    cached = []
    for end in ("one", "two"):
        request = pb.GenerateRequest(prompt=prefix + end, samples=[pb.Sample()], sampling=sampling)
        [answer] = stub.Generate(request, timeout=120)
        cached.append((answer.completion.cached_prompt_tokens, answer.completion.prompt_tokens))
    assert cached[1][0] > 0.9 * cached[1][1]


def test_a_model_comes_and_goes_with_its_memory(server: Any, model: Path, tmp_path: Path) -> None:
    stub, _ = server
    copy = shutil.copytree(model, tmp_path / "copy")
    before = used_memory()
    stub.LoadModel(pb.LoadModelRequest(source=str(copy)), timeout=600)
    assert used_memory() > before
    stub.UnloadModel(pb.UnloadModelRequest(name="copy"), timeout=120)
    assert used_memory() <= before * 1.02


def test_a_model_that_sleeps_gives_its_memory_back_and_is_the_same_after_waking(
    server: Any, model: Path, record_property: Any
) -> None:
    stub, invariant = server
    if invariant:
        pytest.skip("this server was started without sleep mode")
    name = stub.GetModel(pb.GetModelRequest()).model.name
    before, written = used_memory(), texts(stub, PROMPTS[0], [1, 2], temperature=0)
    stub.UnloadModel(pb.UnloadModelRequest(name=name, may_sleep=True), timeout=120)
    asleep = used_memory()
    assert not stub.ListModels(pb.ListModelsRequest()).models
    assert asleep < 0.3 * before, f"{asleep} of {before} MiB are still in use"
    began = time.monotonic()
    stub.LoadModel(pb.LoadModelRequest(name=name, source=str(model)), timeout=300)
    seconds = time.monotonic() - began
    assert seconds < 15, "it was loaded anew instead of woken up"
    assert texts(stub, PROMPTS[0], [1, 2], temperature=0) == written
    record_property("detail", f"{before} MiB awake, {asleep} asleep; awake again after {seconds:.1f} s")


def test_a_base_and_its_adapter_share_the_gpu(server: Any, model: Path, tmp_path: Path, record_property: Any) -> None:
    stub, invariant = server
    if invariant:
        pytest.skip("this server was started without adapters")
    tuned = _module("test_vllm_lora").tune(model, tmp_path / "tuned")
    before, of_base = used_memory(), texts(stub, PROMPTS[1], [1], temperature=0)
    loaded = stub.LoadModel(pb.LoadModelRequest(source=str(tuned)), timeout=300).model
    assert loaded.base == stub.ListModels(pb.ListModelsRequest()).models[0].name
    assert used_memory() < 1.05 * before

    def write(name: str) -> str:
        sampling = pb.SamplingParameters(max_tokens=96)
        asked = pb.GenerateRequest(model=name, prompt=PROMPTS[1], samples=[pb.Sample()], sampling=sampling)
        [answer] = stub.Generate(asked, timeout=120)
        return str(answer.completion.text)

    assert write("tuned") == write("tuned") != write(loaded.base)
    assert [write(loaded.base)] == of_base, "cached prefixes of the adapter are not used for the base"
    stub.UnloadModel(pb.UnloadModelRequest(name="tuned"), timeout=60)
    record_property("detail", f"{before} MiB before, {used_memory()} after")


def used_memory() -> int:
    """Return the MiB in use on the first GPU."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(query, capture_output=True, check=True, text=True).stdout)
