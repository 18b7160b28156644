"""Engine vllm-grpc against a server of the contract that behaves, and one that does not."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from vllm_grpc import vllm_pb2 as pb

from codealign.common.errors import (
    CodeAlignError,
    ConfigurationError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from codealign.inference.engine_opener import EngineOpener, open_engine
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, Sample, Sampling
from codealign.inference.engines.vllm_grpc import engine as engine_module
from codealign.inference.engines.vllm_grpc.engine import VllmGrpcEngine
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import SourceUnreachable
from tests import pki

_spec = importlib.util.spec_from_file_location("vllm_grpc_server", Path(__file__).with_name("vllm_grpc_server.py"))
assert _spec is not None
assert _spec.loader is not None
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)

pytestmark = pytest.mark.model  # for the tokenizer
NANO = Path(__file__).parents[3] / "trainer/nano/src/codealign/nano/data/model"
PROMPT = "def add(a, b):"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(NANO))


@pytest.fixture
def fake(tokenizer: Any) -> Any:
    return fakes.FakeVllm(tokenizer, tokenizer.eos_token_id)


def settings(address: str, **more: Any) -> InferenceSettings:
    chosen = {"vllm_grpc_tokenizer": str(NANO), **more}
    return InferenceSettings(engine="vllm-grpc", vllm_grpc_address=address, **chosen)


@asynccontextmanager
async def opened(fake: Any, model: str = "base", **more: Any) -> AsyncIterator[VllmGrpcEngine]:
    async with fakes.serving(fake) as address:
        engine: Any = await asyncio.to_thread(open_engine, settings(address, **more), model)
        try:
            yield engine
        finally:
            await engine.close()


async def complete(engine: VllmGrpcEngine, sampling: Sampling | None = None, *seeds: int) -> list[Completion]:
    samples = tuple(Sample(at, seed) for at, seed in enumerate(seeds or (7,)))
    request = GenerationRequest(PROMPT, samples, sampling or Sampling(max_tokens=64))
    found = [one async for one in engine.generate(request)]
    return sorted(found, key=lambda completion: completion.attempt)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


async def test_a_completion_has_what_the_server_wrote(fake: Any, tokenizer: Any) -> None:
    async with opened(fake) as engine:
        [completion] = await complete(engine)
        assert (completion.text, completion.finish_reason) == (fake.text, FinishReason.END_TOKEN)
        assert completion.prompt_tokens == len(tokenizer(PROMPT)["input_ids"])
        assert completion.generated_tokens == len(tokenizer(fake.text, add_special_tokens=False)["input_ids"]) + 1
        assert completion.cached_prompt_tokens is None, "the server does not tell: unknown is not 0"
        model = engine.model
        assert (model.name, model.engine, model.context_length) == ("base", "vllm-grpc", 128)
        assert not model.batch_invariant
        load = engine.load()
        assert (load.slots, load.generated_tokens, load.cached_prompt_tokens) == (8, completion.generated_tokens, 0)


async def test_every_sampling_parameter_is_sent(fake: Any, tokenizer: Any) -> None:
    async with opened(fake, vllm_grpc_cache_salt="ours") as engine:
        await complete(
            engine, Sampling(temperature=0.5, top_p=0.9, top_k=3, max_tokens=9, stop=("\nclass",)), 2**63 + 5
        )
        await complete(engine, Sampling(max_tokens=5))
    drawn, greedy = fake.asked
    assert list(drawn.token_ids.ids) == tokenizer(PROMPT)["input_ids"]
    assert (drawn.model, drawn.lora_name, drawn.kv.cache_salt) == ("base", "", "ours")
    assert (drawn.temperature, drawn.sampling.top_k, drawn.sampling.seed) == (0.5, 3, 5), "63 bits of the seed"
    assert drawn.sampling.top_p == pytest.approx(0.9)
    assert list(drawn.stopping.stop_strings) == ["\nclass"]
    assert list(drawn.stopping.stop_token_ids) == [tokenizer.eos_token_id]
    assert (drawn.stopping.max_new_tokens, drawn.stopping.ignore_eos) == (9, True)
    assert greedy.HasField("temperature")
    assert greedy.temperature == 0
    assert not greedy.sampling.HasField("seed")
    # What is off is sent as off, or the model's generation_config.json would set it.
    assert (greedy.sampling.top_p, greedy.decoding.repetition_penalty) == (1.0, 1.0)
    assert greedy.sampling.top_k > len(tokenizer)
    assert drawn.request_id != greedy.request_id


async def test_without_a_limit_the_rest_of_the_context_is_sent(fake: Any, tokenizer: Any) -> None:
    async with opened(fake) as engine:
        await complete(engine, Sampling())
    assert fake.asked[0].stopping.max_new_tokens == 128 - len(tokenizer(PROMPT)["input_ids"])


async def test_a_prompt_that_does_not_fit_is_refused_here(fake: Any) -> None:
    fake.context = 4
    async with opened(fake) as engine:
        with pytest.raises(InvalidArgument, match="context has 4"):
            await complete(engine)
    assert not fake.asked


async def test_stop_strings_and_limits(fake: Any) -> None:
    async with opened(fake) as engine:
        [stopped] = await complete(engine, Sampling(max_tokens=64, stop=("+ b", "    ret")))
        assert (stopped.text, stopped.finish_reason) == ("def add(a, b):\n", FinishReason.STOP_STRING)
        assert stopped.stop_string == "    ret"
        [cut] = await complete(engine, Sampling(max_tokens=3))
        assert (cut.finish_reason, cut.generated_tokens) == (FinishReason.LENGTH, 3)


async def test_samples_have_their_own_seeds(fake: Any) -> None:
    async with opened(fake) as engine:
        sampling = Sampling(temperature=1.0, max_tokens=64)
        first, other = await complete(engine, sampling, 1, 2)
        assert first.text != other.text
        assert (await complete(engine, sampling, 1))[0].text == first.text
    assert len(fake.asked) == 3


async def test_an_adapter_is_a_model(fake: Any) -> None:
    fake.adapters = {"tuned": "/adapters/tuned"}
    async with opened(fake, "tuned") as engine:
        await complete(engine)
        assert (fake.asked[0].model, fake.asked[0].lora_name) == ("", "tuned")
        revision = engine.model.revision
    fake.adapters = {"tuned": "/adapters/other"}
    async with fakes.serving(fake) as address:
        with pytest.raises(FailedPrecondition, match=revision):
            await asyncio.to_thread(open_engine, settings(address), "tuned", "", revision)


async def test_a_model_that_is_not_there_names_server_and_model(fake: Any) -> None:
    async with fakes.serving(fake) as address:
        with pytest.raises(ConfigurationError, match="does not serve model absent") as error:
            await EngineOpener(settings(address)).open("absent", "", "")
    assert address in str(error.value)
    assert "base, alias" in str(error.value)


async def test_a_tokenizer_that_is_only_on_the_server(fake: Any) -> None:
    fake.model_id = "/models/on/the/server"
    async with fakes.serving(fake) as address:
        with pytest.raises(ConfigurationError, match="VLLM_GRPC_TOKENIZER"):
            await asyncio.to_thread(open_engine, settings(address, vllm_grpc_tokenizer=""), "base")


async def test_a_server_that_is_away(fake: Any) -> None:
    async with fakes.serving(fake) as address:
        pass
    with pytest.raises(SourceUnreachable, match=address):
        await asyncio.to_thread(open_engine, settings(address), "base")


async def test_a_server_of_another_contract(fake: Any) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(ConfigurationError, match="--grpc-port"):
            await asyncio.to_thread(open_engine, settings(f"127.0.0.1:{port}"), "base")
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.INTERNAL, Internal),
        (grpc.StatusCode.UNAUTHENTICATED, Internal),
    ],
)
async def test_a_fault_names_the_server_and_is_not_sent_again(
    fake: Any, code: grpc.StatusCode, expected: type[CodeAlignError]
) -> None:
    async def fail(context: Any) -> None:
        await context.abort(code, "what vLLM says")

    fake.before = fail
    async with opened(fake) as engine:
        with pytest.raises(expected, match="what vLLM says") as error:
            await complete(engine)
        assert engine.model.device in str(error.value)
        assert not engine.fault
    assert len(fake.asked) == 1


def without_end(answer: pb.GenerateResponse) -> None:
    answer.outputs.ClearField("finish_info")


def wrong_ids(answer: pb.GenerateResponse) -> None:
    answer.outputs.token_ids[0] = answer.outputs.token_ids[1]


def other_vocabulary(answer: pb.GenerateResponse) -> None:
    answer.outputs.token_ids[0] = 2**31


def lost_ids(answer: pb.GenerateResponse) -> None:
    del answer.outputs.token_ids[0]


def shorter_prompt(answer: pb.GenerateResponse) -> None:
    answer.prompt_info.num_prompt_tokens -= 1


def cut_early(answer: pb.GenerateResponse) -> None:
    answer.outputs.finish_info.finish_reason = fakes.LENGTH


def other_end(answer: pb.GenerateResponse) -> None:
    answer.outputs.token_ids[-1] = answer.outputs.token_ids[0]


def unrequested_stop(answer: pb.GenerateResponse) -> None:
    answer.outputs.finish_info.stop_string = "stop"


def other_text(answer: pb.GenerateResponse) -> None:
    answer.outputs.text = "something else"


def no_text(answer: pb.GenerateResponse) -> None:
    answer.outputs.text = ""


def empty(answer: pb.GenerateResponse) -> None:
    answer.Clear()


@pytest.mark.parametrize(
    "change",
    [
        *(without_end, wrong_ids, other_vocabulary, lost_ids, shorter_prompt, cut_early, other_end),
        *(unrequested_stop, other_text, no_text, empty),
    ],
)
async def test_an_answer_that_contradicts_itself_is_no_sample(fake: Any, change: Any) -> None:
    fake.change = change
    async with opened(fake) as engine:
        with pytest.raises(Internal, match="VLLM_GRPC_TOKENIZER") as error:
            await complete(engine)
        assert engine.model.device in str(error.value)


async def test_white_space_and_damaged_characters_do_not_matter(fake: Any) -> None:
    def changed(answer: pb.GenerateResponse) -> None:
        answer.outputs.text = f" {answer.outputs.text}\ufffd"

    fake.change = changed
    async with opened(fake) as engine:
        [completion] = await complete(engine)
        assert completion.text.strip(" \ufffd") == fake.text


async def test_a_request_that_the_server_stopped_is_retried(fake: Any) -> None:
    def aborted(answer: pb.GenerateResponse) -> None:
        answer.outputs.finish_info.finish_reason = fakes.ABORTED

    fake.change = aborted
    async with opened(fake) as engine:
        with pytest.raises(Unavailable, match="before its end"):
            await complete(engine)


async def test_a_hang_ends_and_is_aborted(fake: Any) -> None:
    fake.hangs = True
    async with opened(fake, vllm_grpc_timeout=0.5) as engine:
        with pytest.raises(DeadlineExceeded, match="VLLM_GRPC_TIMEOUT"):
            await complete(engine)
        await until(lambda: fake.aborted)
    assert fake.aborted == [fake.asked[0].request_id]


async def test_a_caller_that_leaves_stops_the_server(fake: Any) -> None:
    fake.hangs = True
    async with opened(fake) as engine:
        request = GenerationRequest(PROMPT, (Sample(0, 1), Sample(1, 2)), Sampling(max_tokens=8))
        async with aclosing(engine.generate(request)) as completions:
            waiting = asyncio.ensure_future(anext(completions))
            await until(lambda: len(fake.running) == 2)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: len(fake.aborted) == 2)
    assert set(fake.aborted) == {each.request_id for each in fake.asked}


async def test_no_more_requests_than_the_server_decodes(fake: Any) -> None:
    fake.hangs = True
    async with opened(fake, vllm_grpc_concurrency=2) as engine:
        waiting = asyncio.ensure_future(complete(engine, None, 1, 2, 3))
        await until(lambda: len(fake.running) == 2)
        await asyncio.sleep(0.1)
        assert len(fake.asked) == 2
        assert engine.load().waiting == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_another_model_behind_the_same_name(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_LOOK_AGAIN_SECONDS", 0.0)
    async with opened(fake) as engine:
        await complete(engine)
        fake.model_id = "another/model"
        with pytest.raises(Unavailable, match="some/model and is another/model"):
            await complete(engine)
        assert "another one" in engine.fault, "the service restarts, and takes it under another revision"
    assert len(fake.asked) == 1


async def test_a_model_that_the_server_no_longer_serves(fake: Any) -> None:
    async with opened(fake) as engine:
        fake.names = ["other"]
        with pytest.raises(Unavailable, match="does not serve model base"):
            await complete(engine)
        assert "does not serve model base" in engine.fault


async def test_a_sample_that_waited_is_not_sent_to_another_model(fake: Any) -> None:
    async with opened(fake, vllm_grpc_concurrency=1) as engine:

        async def replaced(context: Any) -> None:
            await until(lambda: engine.load().waiting == 1)
            fake.model_id, fake.before = "another/model", None
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

        fake.before = replaced
        ends = await asyncio.gather(complete(engine), complete(engine), return_exceptions=True)
        assert ["some/model and is another/model" in str(end) for end in ends] == [True, True]
    assert len(fake.asked) == 1


async def test_calls_do_not_wait_one_after_the_other_for_a_server_that_hangs(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_LOOK_AGAIN_SECONDS", 0.0)
    looks = 0

    async def hang(name: str) -> Any:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.5)
        raise SourceUnreachable("it does not respond")

    async with opened(fake) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(engine._server, "describe_again", hang)
            ends = await asyncio.gather(*(complete(engine) for _ in range(12)), return_exceptions=True)
        assert {str(end) for end in ends} == {"it does not respond"}
        assert looks < 7, "not one for each"
        assert (await complete(engine))[0].text == fake.text, "it responds again"


async def test_a_server_that_comes_back_with_the_same_model(fake: Any, tokenizer: Any) -> None:
    async with opened(fake) as engine:
        address = engine.model.device

        async def away(context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

        fake.before = away
        with pytest.raises(Unavailable, match=address):
            await complete(engine)
        fake.before = None
        assert (await complete(engine))[0].text == fake.text
        assert not engine.fault


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.Authority.make(tmp_path)


@pytest.fixture
def credentials(authority: pki.Authority) -> grpc.ServerCredentials:
    files = authority.server()
    pair = Path(files["tls_key_file"]).read_bytes(), Path(files["tls_cert_file"]).read_bytes()
    return grpc.ssl_server_credentials([pair])


async def test_tls(fake: Any, authority: pki.Authority, credentials: grpc.ServerCredentials) -> None:
    async with fakes.serving(fake, credentials) as address:
        chosen = settings(address, vllm_grpc_tls_ca_file=authority.certificate)
        engine: Any = await asyncio.to_thread(open_engine, chosen, "base")
        assert (await complete(engine))[0].text == fake.text
        await engine.close()


@pytest.mark.parametrize("address", ["", "host", "http://host:1", "host:port"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="vllm_grpc_address as host:port"):
        settings(address)


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set together"):
        settings("host:1", vllm_grpc_tls_cert_file=tmp_path / "cert.pem")
