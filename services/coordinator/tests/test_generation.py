"""What becomes of completions: records, rejections that say what was seen, and samples that depend on nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.inference.v1 import inference_pb2_grpc as rpc
from codealign.common import records
from codealign.common.clients import Addresses, Clients, RetryPolicy
from codealign.coordinator import calls
from codealign.coordinator.pipelines.selfcodealign import templates as prompts
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.runs import faults
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.runs.generation import Generation
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.store import RunStore

PARENT = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="def f(x): return x")))
FEW_SHOTS = 2
NEXT = prompts.INSTRUCTION.next_example(FEW_SHOTS)
TASK = "Write a function that returns its argument."


class Inference(rpc.InferenceServiceServicer):
    """Answers an attempt with the completion of its number, or fails the call with a status."""

    def __init__(self) -> None:
        self.completions: list[inf.Completion | grpc.StatusCode] = []
        self.requests: list[inf.GenerateRequest] = []

    async def Generate(self, request: inf.GenerateRequest, context: Any) -> AsyncIterator[inf.GenerateResponse]:
        self.requests.append(request)
        for sample in request.samples:
            found = self.completions[sample.attempt]
            if not isinstance(found, inf.Completion):
                await context.abort(found, "the endpoint's answer has no choice: {}")
                return
            answer = inf.Completion(attempt=sample.attempt, seed=sample.seed)
            answer.MergeFrom(found)
            yield inf.GenerateResponse(completion=answer, model="m", revision="r")


class Store(RunStore):
    """Keeps records in memory; the first write wins."""

    def __init__(self) -> None:
        self.kept: dict[str, pb.Record] = {}

    async def append(self, record: pb.Record) -> pb.Record:
        records.complete(record)
        return self.kept.setdefault(record.id, record)

    async def get(self, ids: Sequence[str]) -> dict[str, pb.Record]:
        return {each: self.kept[each] for each in ids if each in self.kept}


def keep(record: pb.Record, text: str) -> Rejected | None:
    record.instruction.text = text
    return None


class Bench:
    """A stage over an inference service."""

    def __init__(self, clients: Clients, inference: Inference) -> None:
        self.clients, self.inference = clients, inference

    def stage(self, config: str = "config", draws: str = "draws") -> Generation:
        return Generation(
            name="instructions",
            made=pb.KIND_INSTRUCTION,
            config_id=records.derive_id(pb.KIND_STAGE_CONFIG, content=config),
            draws_id=records.derive_id(pb.KIND_STAGE_CONFIG, content=draws),
            settings=pb.GenerationSettings(temperature=0.7, max_tokens=64, few_shots=FEW_SHOTS, prefix_groups=4),
            model=pb.ModelChoice(model="m", revision="r"),
            section=prompts.INSTRUCTION,
            store=Store(),
            clients=self.clients,
            tally=StageTally(),
            slots=asyncio.Semaphore(1),
            gate=lambda: None,
            seed=3,
            timeout=10.0,
        )

    async def draw(
        self, *completions: inf.Completion | grpc.StatusCode, stage: Generation | None = None
    ) -> list[pb.Record]:
        """What becomes of these, in the order of the attempts."""
        self.inference.completions = list(completions)
        stage = stage or self.stage()
        prompt = prompts.Prompt("prefix\n", "suffix\n")
        found = [one async for one in stage.draw(PARENT, PARENT.id, range(len(completions)), prompt, keep)]
        return sorted(found, key=lambda record: record.attempt)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(faults, "_BACKOFF", RetryPolicy(attempts=0, first_delay=0.0, max_delay=0.0))
    server, inference = grpc.aio.server(), Inference()  # type: ignore[abstract]
    rpc.add_InferenceServiceServicer_to_server(inference, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Clients(Addresses(inference=f"127.0.0.1:{port}")) as clients:
        yield Bench(clients, inference)
    await server.stop(None)


def stopped(text: str, stop_string: str = "") -> inf.Completion:
    return inf.Completion(text=text, finish_reason=inf.FINISH_REASON_STOP_STRING, stop_string=stop_string)


def ended(reason: inf.FinishReason.ValueType, text: str = "", detail: str = "") -> inf.Completion:
    return inf.Completion(text=text, finish_reason=reason, detail=detail)


def reasons() -> Iterator[tuple[inf.Completion, str, str]]:
    yield ended(inf.FINISH_REASON_CONTENT_FILTER, "", "policy"), "content-filter", ": policy"
    yield ended(inf.FINISH_REASON_CONTENT_FILTER, TASK), "content-filter", "refused to write this"
    yield ended(inf.FINISH_REASON_TOOL_CALL, "", "finish_reason tool_calls"), "tool-call", ": finish_reason tool_calls"
    yield ended(inf.FINISH_REASON_LENGTH, TASK), "cut-off", "token limit"
    yield stopped(TASK, NEXT), "cut-by-stop", "the next example before </task>"
    yield stopped("```xml\n<task>", "\n</task>"), "cut-by-stop", "'\\n</task>' was reached inside a code block"
    yield stopped("```xml\n<task>"), "cut-by-stop", "does not tell by what"


async def test_one_items_fault_is_its_rejection_and_ends_nothing(bench: Bench) -> None:
    whole = stopped(TASK, "\n</task>")
    stage = bench.stage()
    found = await bench.draw(*(each for each, _, _ in reasons()), whole, stage=stage)
    for record, (completion, reason, detail) in zip(found, reasons(), strict=False):
        assert record.kind == pb.KIND_REJECTION
        assert (record.rejection.reason, record.rejection.text) == (reason, completion.text)
        assert detail in record.rejection.detail
    assert found[-1].instruction.text.strip() == TASK
    assert (stage.tally.kept, dict(stage.tally.reasons)) == (
        1,
        {"content-filter": 2, "tool-call": 1, "cut-off": 1, "cut-by-stop": 3},
    )
    assert found[0].provenance.finish_reason == "content_filter"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("has 900 tokens; the model's context holds 256 with at least one new token: shorten it", "prompt-too-long"),
        ("the endpoint answers 400: This model's maximum context length is 4096 tokens", "prompt-too-long"),
        ("the endpoint answers 413: Request too large", "prompt-too-long"),
        ("the endpoint answers 400: Unrecognized request argument supplied: seed", "prompt-refused"),
    ],
)
async def test_a_refused_prompt_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch, said: str, reason: str) -> None:
    async def refuse(*_: object) -> None:
        raise faults.Refused("prompt", said)

    monkeypatch.setattr(calls, "absorb", refuse)
    for record in await bench.draw(grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT):
        assert (record.rejection.reason, record.rejection.detail) == (reason, said)


async def test_an_answer_that_cannot_be_read_is_asked_for_again_and_then_told(bench: Bench) -> None:
    with pytest.raises(RunFailed, match="has no choice"):
        await bench.draw(grpc.StatusCode.INTERNAL)
    assert len(bench.inference.requests) == faults.INTERNAL_TRIES


async def test_samples_depend_on_what_is_drawn_and_not_on_how_it_is_read(bench: Bench) -> None:
    whole = stopped(TASK, "\n</task>")

    async def seeds(stage: Generation) -> list[int]:
        bench.inference.requests.clear()
        await bench.draw(whole, whole, stage=stage)
        [request] = bench.inference.requests
        assert list(request.sampling.stop) == ["\n</task>", NEXT]
        return [sample.seed for sample in request.samples]

    first, read, drawn = bench.stage(), bench.stage(config="other"), bench.stage(draws="other")
    assert await seeds(first) == await seeds(read) != await seeds(drawn)
    assert first.key(PARENT.id) == read.key(PARENT.id) != drawn.key(PARENT.id)
    assert first.group(PARENT.id) == read.group(PARENT.id)
    made = {record.id for record in await bench.draw(whole, stage=bench.stage())}
    assert made.isdisjoint(record.id for record in await bench.draw(whole, stage=bench.stage(config="other")))
