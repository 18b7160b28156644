"""vLLM serves the contract in the same way as the transformers engine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.common.errors import InvalidArgument, violated_fields
from codealign.inference.engines.base import ChatMessage, Completion, GenerationRequest, Sample, Sampling
from codealign.inference.engines.transformers.engine import TransformersEngine
from codealign.inference.engines.transformers.loading import load_model
from codealign.inference.engines.transformers.options import EngineOptions
from tests.monitoring.test_dashboards import VLLM

from . import vllm_server as vllm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# vLLM's CPU attention needs a head size of at least 32, and its cache blocks have 128 tokens.
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024}
FEW_SHOTS = "### Instruction\nWrite a function that adds.\n### Response\ndef add(a, b):\n    return a + b\n\n"
PROMPTS = ["def add", FEW_SHOTS + "### Instruction\nReverse a text.\n", "größer 你好", "for item in items:"]
GREEDY = pb.SamplingParameters(max_tokens=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    vllm.require_environment()
    return make_model(tmp_path_factory.mktemp("models") / "tiny", **SIZES)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def server(folder: Path, work: Path) -> Iterator[tuple[Any, Any]]:
    """The stub and the process."""
    with vllm.started(work, folder, slots=8, max_waiting=64, drain_seconds=5) as process:
        ports = vllm.ports(work, process)
        with grpc.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
            yield InferenceServiceStub(channel), process


@pytest.fixture(scope="module")
def stub(server: tuple[Any, Any]) -> Any:
    return server[0]


@pytest.fixture(scope="module")
async def reference(folder: Path, work: Path) -> Any:
    """The transformers engine with the same model."""
    options = EngineOptions(slots=4, threads=1, kv_cache_bytes=2**26, prefix_cache_bytes=0)
    engine = TransformersEngine(load_model(str(folder), cache_folder=work / "cache", options=options), options)
    yield engine
    await engine.close()


def generate(stub: Any, prompt: str, sampling: pb.SamplingParameters, *seeds: int, model: str = "tiny") -> list[Any]:
    """Return completions in the order of their seeds."""
    samples = [pb.Sample(attempt=at, seed=seed) for at, seed in enumerate(seeds or (0,))]
    request = pb.GenerateRequest(model=model, prompt=prompt, samples=samples, sampling=sampling)
    answers = [answer.completion for answer in stub.Generate(request, timeout=120)]
    return sorted(answers, key=lambda completion: completion.attempt)


async def expected(engine: TransformersEngine, prompt: Any, max_tokens: int = 40) -> Completion:
    request = GenerationRequest(prompt, (Sample(0, 0),), Sampling(max_tokens=max_tokens))
    [completion] = [one async for one in engine.generate(request)]
    return completion


def whole(text: str) -> str:
    """Remove a partial character at the end: vLLM leaves it out, transformers marks it."""
    return text.rstrip("\ufffd")


async def test_greedy_text_is_the_one_of_transformers(stub: Any, reference: TransformersEngine) -> None:
    for prompt in PROMPTS:
        [completion] = generate(stub, prompt, GREEDY)
        wanted = await expected(reference, prompt)
        assert completion.text == whole(wanted.text)
        assert completion.prompt_tokens == wanted.prompt_tokens
        assert completion.generated_tokens == wanted.generated_tokens
        assert completion.finish_reason == {"length": 3, "end_token": 1}[wanted.finish_reason.value]
        assert completion.seconds > 0


async def test_a_conversation_goes_through_the_template(stub: Any, reference: TransformersEngine) -> None:
    for messages in (
        (ChatMessage("user", "def add"),),
        (ChatMessage("user", "def add"), ChatMessage("assistant", "return a")),
    ):
        chat = pb.ChatMessages(messages=[pb.ChatMessage(role=one.role, content=one.content) for one in messages])
        [answer] = stub.Generate(pb.GenerateRequest(chat=chat, samples=[pb.Sample()], sampling=GREEDY))
        assert answer.completion.text == whole((await expected(reference, messages)).text)


def test_the_model_is_the_same_by_its_revision(stub: Any, reference: TransformersEngine) -> None:
    model = stub.GetModel(pb.GetModelRequest()).model
    same = ("name", "source", "revision", "context_length", "chat_template", "dtype", "device", "size_bytes")
    assert [getattr(model, field) for field in same] == [getattr(reference.model, field) for field in same]
    assert (model.engine, model.batch_invariant) == ("vllm", False)


async def test_tokens_are_counted_alike(stub: Any, reference: TransformersEngine) -> None:
    texts = ["", *PROMPTS]
    counts = stub.CountTokens(pb.CountTokensRequest(texts=texts)).counts
    assert list(counts) == await reference.count_tokens(texts)


def test_a_seed_draws_the_same_whatever_else_is_asked_for(stub: Any) -> None:
    sampling = pb.SamplingParameters(temperature=1.0, top_p=0.95, top_k=100, max_tokens=30)
    seeds = (1, 2, 2**63 + 5, 2**64 - 1, 1)
    together = [one.text for one in generate(stub, PROMPTS[1], sampling, *seeds)]
    alone = [generate(stub, PROMPTS[1], sampling, seed)[0].text for seed in seeds]
    assert together == alone
    assert together[0] == together[4]
    assert len(set(together)) == 4


async def test_text_ends_before_the_stop_string(stub: Any, reference: TransformersEngine) -> None:
    text = whole((await expected(reference, PROMPTS[0])).text)
    stop = text[8:20]
    sampling = pb.SamplingParameters(max_tokens=40, stop=["never", stop])
    [completion] = generate(stub, PROMPTS[0], sampling)
    assert completion.text == text[: text.index(stop)]
    assert (completion.finish_reason, completion.stop_string) == (pb.FINISH_REASON_STOP_STRING, stop)
    assert 0 < completion.generated_tokens < 40


def test_what_an_earlier_prompt_shared_comes_from_the_cache(stub: Any) -> None:
    prefix = FEW_SHOTS * 12
    counts = []
    for end in ("one", "two"):
        first, *others = generate(stub, prefix + end, pb.SamplingParameters(max_tokens=2), 1, 2, 3)
        assert first.prompt_tokens > 400
        counts.append(first.cached_prompt_tokens)
        assert all(other.cached_prompt_tokens >= 128 for other in others)
    assert counts[0] < 128 <= counts[1] < first.prompt_tokens
    load = stub.GetLoad(pb.GetLoadRequest())
    assert (load.slots, load.running, load.waiting) == (8, 0, 0)
    assert 0 < load.cached_prompt_tokens < load.prompt_tokens


def test_vllms_own_metrics_are_beside_ours(stub: Any, work: Path) -> None:
    generate(stub, "def add", pb.SamplingParameters(max_tokens=4), 1)
    port = json.loads((work / "endpoint.json").read_text())["metrics_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        exposed = {line.partition("{")[0].partition(" ")[0] for line in answer.read().decode().splitlines()}
    assert exposed >= VLLM
    assert {f"codealign_inference_{name}_seconds_count" for name in ("queue", "time_to_first_token")} <= exposed


async def test_a_prompt_beyond_the_context_is_refused_alike(stub: Any, reference: TransformersEngine) -> None:
    prompt = "def add(a, b): " * 400
    with pytest.raises(grpc.RpcError) as caught:
        generate(stub, prompt, GREEDY)
    with pytest.raises(InvalidArgument) as wanted:
        await expected(reference, prompt)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == ["prompt"]
    assert error.details() == wanted.value.message


def test_without_max_tokens_the_context_is_the_limit(stub: Any) -> None:
    [completion] = generate(stub, FEW_SHOTS * 20, pb.SamplingParameters(temperature=1.5), 4)
    if completion.finish_reason == pb.FINISH_REASON_LENGTH:
        assert completion.prompt_tokens + completion.generated_tokens == 1024
    else:
        assert completion.finish_reason == pb.FINISH_REASON_END_TOKEN


def test_a_cancelled_call_frees_its_slots(stub: Any) -> None:
    samples = [pb.Sample(attempt=at, seed=at) for at in range(20)]
    sampling = pb.SamplingParameters(temperature=1.0, max_tokens=900)
    call = stub.Generate(pb.GenerateRequest(prompt="def", samples=samples, sampling=sampling))
    wait_for(stub, lambda load: (load.running, load.waiting) == (8, 12))
    call.cancel()
    wait_for(stub, lambda load: (load.running, load.waiting) == (0, 0))
    assert len(generate(stub, "def", GREEDY, 1, 2)) == 2


def test_too_much_waiting_is_refused(stub: Any) -> None:
    samples = [pb.Sample(attempt=at, seed=at) for at in range(60)]
    sampling = pb.SamplingParameters(temperature=1.0, max_tokens=900)
    call = stub.Generate(pb.GenerateRequest(prompt="def", samples=samples, sampling=sampling))
    wait_for(stub, lambda load: load.waiting > 40)
    with pytest.raises(grpc.RpcError) as caught:
        generate(stub, "def", GREEDY, *range(40))
    call.cancel()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_for(stub, lambda load: load.running == 0)


async def test_another_model_comes_and_goes_with_its_processes(
    server: tuple[Any, Any], reference: TransformersEngine, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    stub, process = server
    ids = reference._tokenizer((await expected(reference, PROMPTS[0])).text)["input_ids"]
    # The same weights with another end token, one that they generate.
    end = next(at for at in range(3, len(ids)) if ids[at] not in ids[:at])
    other = make_model(tmp_path / "ended", end_tokens=[0, ids[end]], **SIZES)
    before = set(vllm.descendants(process.pid))
    model = stub.LoadModel(pb.LoadModelRequest(source=f"file://{other}")).model
    assert model.revision != reference.model.revision
    assert [one.name for one in stub.ListModels(pb.ListModelsRequest()).models] == ["tiny", "ended"]
    [completion] = generate(stub, PROMPTS[0], GREEDY, model="ended")
    assert completion.finish_reason == pb.FINISH_REASON_END_TOKEN
    assert completion.generated_tokens == end + 1
    assert completion.text == reference._tokenizer.decode(ids[:end])
    added = set(vllm.descendants(process.pid)) - before
    assert added
    samples = [pb.Sample(attempt=at, seed=at) for at in range(4)]
    sampling = pb.SamplingParameters(temperature=1.0, max_tokens=900)
    call = stub.Generate(pb.GenerateRequest(model="ended", prompt="for", samples=samples, sampling=sampling))
    wait_for(stub, lambda load: load.running > 0)
    stub.UnloadModel(pb.UnloadModelRequest(name="ended"), timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    for gone in added:
        vllm.wait_until_gone(gone, 5)
    assert len(generate(stub, "def", GREEDY)) == 1


async def test_the_embedded_model_is_served_too(stub: Any, work: Path) -> None:
    source = Path(__file__).parents[3] / "trainer/nano/src/codealign/nano/data/model"
    options = EngineOptions(slots=4, threads=1, kv_cache_bytes=2**26, prefix_cache_bytes=0)
    engine = TransformersEngine(load_model(str(source), cache_folder=work / "cache", options=options), options)
    stub.LoadModel(pb.LoadModelRequest(source=str(source), name="nano"))
    try:
        for what in ("sum of the even numbers", "number of the negative numbers"):
            prompt = f'def f(values):\n    """Return the {what} in `values`."""\n'
            [completion] = generate(stub, prompt, GREEDY, model="nano")
            assert completion.text == whole((await expected(engine, prompt)).text)
            assert "return" in completion.text
    finally:
        await engine.close()
        stub.UnloadModel(pb.UnloadModelRequest(name="nano"), timeout=60)


def test_logs_go_to_stderr_alone(server: tuple[Any, Any], work: Path) -> None:
    assert (work / "stdout").read_bytes() == b""
    assert '"event": "vllm_started"' in (work / "stderr").read_text()


def test_the_end_of_the_engine_ends_calls_and_the_server(server: tuple[Any, Any], work: Path) -> None:
    """This must be the last test of the shared server: it ends it."""
    stub, process = server
    sampling = pb.SamplingParameters(temperature=1.0, max_tokens=900)
    samples = [pb.Sample(attempt=at, seed=at) for at in range(8)]
    call = stub.Generate(pb.GenerateRequest(prompt="def", samples=samples, sampling=sampling))
    wait_for(stub, lambda load: load.running == 8)
    [core] = [pid for pid in vllm.descendants(process.pid) if "EngineCor" in vllm.command(pid)]
    os.kill(core, signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert process.wait(30) == 1
    lines = (work / "stderr").read_text().splitlines()
    assert any(line.startswith("codealign-inference: model tiny: vLLM's engine process died") for line in lines)


def test_a_stop_while_it_starts_leaves_no_process(folder: Path, tmp_path: Path) -> None:
    with vllm.started(tmp_path, folder) as process:
        deadline = time.monotonic() + 60
        while not (left := vllm.descendants(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for pid in left:
            vllm.wait_until_gone(pid)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vllm_args": '{"max_num_seq": 3}'}, "vLLM's engine has no argument max_num_seq (did you mean max_num_seqs?)"),
        ({"vllm_args": '{"model": "x"}'}, "model cannot be set here"),
        ({"dtype": "float64"}, "float64 is not supported by vLLM"),
        ({"vllm_batch_invariant": "true", "device": "cpu"}, "batch-invariant on GPUs only"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, tmp_path: Path, settings: dict[str, str], message: str) -> None:
    with vllm.started(tmp_path, folder, **settings) as process:
        assert process.wait(60) == 2
    assert message in (tmp_path / "stderr").read_text().splitlines()[-1]


def test_without_vllm_the_remedy_is_said(folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("this environment has vLLM")
    import subprocess

    arguments = [sys.executable, "-m", "codealign.inference.main", "--engine", "vllm", "--model", str(folder)]
    ended = subprocess.run(arguments, env=vllm.environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "run `make setup-vllm` and start this server with .venv-vllm/bin/python" in ended.stderr


def wait_for(stub: Any, condition: Callable[[Any], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition(load := stub.GetLoad(pb.GetLoadRequest())):
        assert time.monotonic() < deadline, load
        time.sleep(0.01)
