"""Handling of completions: stored unchanged, reused, parsed once, and rejected with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import FailedPrecondition, Internal, InvalidArgument, Unavailable
from codealign.coordinator import pipelines
from codealign.coordinator.ground import faults, windows
from codealign.coordinator.ground.calls import Completions
from codealign.coordinator.ground.faults import RunFailed, RunStopped
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Item, Settings
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.breaker import Breaker
from codealign.coordinator.runs.config import run_records, stage_configs
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.generation import Drawn, Generation
from codealign.coordinator.runs.prefixes import Prefixes
from codealign.coordinator.runs.progress import empty_progress
from fakes import FakeServices, toys
from fakes.virtual_time import in_virtual_time

[SEED] = toys.seeds(1)
ITEM = Item(SEED, SEED.id, {"seeds": SEED})
NEXT = "\n## Example 3\n\n<item>\n"
TEXT = "Write a function that returns its argument."


class Bench:
    """Test bench: the first stage of a toy pipeline over fakes."""

    def __init__(self, fakes: FakeServices | None = None, name: str = "fan-out", seed: int = 7) -> None:
        self.fakes = fakes or FakeServices()
        self.dataset, self.inference = self.fakes.dataset, self.fakes.inference
        run = toys.run_record(name).run
        run.seed = seed
        config, record = run_records(run)
        configs, self.progress = stage_configs(run), empty_progress(run)
        self.dataset.put(SEED, config, record, *configs.all())
        self.store = RunStore(self.dataset, record.id)
        self.allowed = True
        self.context = Context(
            record,
            pipelines.get(name),
            Settings(run),
            configs,
            self.store,
            BenchmarkTexts(),
            self.progress,
            Breaker(),
            self.gate,
        )
        self.stage = self.context.pipeline.writing[0]
        self.tally = self.progress[self.stage.name]
        window = windows.of_inference(self.inference)
        completions = Completions(self.inference, self.tally, window, self.gate, 10.0, self.store.waiting)
        self.generation = Generation(self.context, self.stage, completions, Prefixes(self.store))

    def gate(self) -> None:
        """Raise if a test closed the gate."""
        if not self.allowed:
            raise RunStopped("paused")

    async def draw(self, *completions: inf.Completion, fresh: bool = False) -> list[Drawn]:
        """Return the records parsed from these completions, one per attempt."""
        self.inference.writes = lambda request, sample: completions[sample.attempt]
        found: list[Drawn] = []
        await self.generation.draw(ITEM, range(len(completions)), fresh=fresh, deliver=found.append)
        return sorted(found, key=lambda drawn: (drawn.attempt, drawn.number))

    def rejections(self) -> list[pb.Record]:
        """Return the rejections, ordered by attempt."""
        found = self.dataset.of_kind(pb.KIND_REJECTION, self.store.collection)
        return sorted(found, key=lambda record: record.attempt)


def stopped(text: str, stop_string: str = "") -> inf.Completion:
    return inf.Completion(text=text, finish_reason=inf.FINISH_REASON_STOP_STRING, stop_string=stop_string)


def ended(reason: inf.FinishReason.ValueType, text: str = "", detail: str = "") -> inf.Completion:
    return inf.Completion(text=text, finish_reason=reason, detail=detail)


def unreadable() -> Iterator[tuple[inf.Completion, str, str]]:
    yield ended(inf.FINISH_REASON_CONTENT_FILTER, "", "policy"), "content-filter", ": policy"
    yield ended(inf.FINISH_REASON_CONTENT_FILTER, TEXT), "content-filter", "refused to write this"
    yield ended(inf.FINISH_REASON_TOOL_CALL, "", "finish_reason tool_calls"), "tool-call", ": finish_reason tool_calls"
    yield ended(inf.FINISH_REASON_LENGTH, TEXT), "cut-off", "token limit"
    yield stopped(TEXT, NEXT), "cut-by-stop", "the next example before </instructions>"
    yield toys.said("boom"), "internal-error", "RecursionError: maximum recursion depth exceeded"
    yield toys.said(" \n"), "empty", "nothing"


async def test_what_cannot_be_read_is_a_rejection_that_says_what_was_seen() -> None:
    bench = Bench()
    whole = stopped(TEXT, "\n</instructions>")
    found = await bench.draw(*(each for each, _, _ in unreadable()), whole)
    for record, (completion, reason, detail) in zip(bench.rejections(), unreadable(), strict=True):
        assert record.rejection.reason == reason
        assert detail in record.rejection.detail
        assert record.rejection.rejected_kind == bench.stage.makes
        item, kept = record.parents
        assert item == SEED.id
        assert bench.dataset.records[kept].completion.text == completion.text
        assert record.provenance.generated_tokens > 0
    [drawn] = found
    assert drawn.item.record.instruction.text == TEXT
    assert drawn.item.text.strip() == TEXT
    assert bench.tally.kept == 1
    assert bench.tally.dropped == len(list(unreadable()))


async def test_a_completion_is_kept_as_it_came_under_an_id_that_derives_from_prompt_sampling_and_seed() -> None:
    bench = Bench()
    await bench.draw(stopped(TEXT, "\n</instructions>"))
    [record] = bench.dataset.of_kind(pb.KIND_COMPLETION, bench.store.collection)
    [request] = bench.inference.requests
    prefix = bench.dataset.records[record.parents[0]].prompt_prefix.text
    assert prefix + record.completion.prompt_suffix == request.prompt
    assert request.prefix_chars == len(prefix)
    digest = hashlib.sha256(record.completion.prompt_suffix.encode()).hexdigest()
    assert record.key == f"{digest}/{request.samples[0].seed}"
    assert record.stage_config_id == bench.context.configs.sampling("instructions").id
    assert (record.completion.finish_reason, record.completion.stop_string) == ("stop_string", "\n</instructions>")
    assert record.provenance.model_revision == request.expected_revision


async def test_children_of_one_completion_are_numbered_and_only_the_first_bears_its_tokens() -> None:
    bench = Bench()
    found = await bench.draw(toys.said("one\ntwo\nthree"))
    assert [drawn.item.record.instruction.text for drawn in found] == ["one", "two", "three"]
    assert [drawn.item.record.key for drawn in found] == ["", "1", "2"]
    assert len({drawn.item.key for drawn in found}) == 3
    assert [drawn.item.record.provenance.generated_tokens for drawn in found] == [3, 0, 0]
    assert all(drawn.fresh for drawn in found)


async def test_what_was_read_before_is_found_with_all_its_children_and_nothing_is_asked() -> None:
    bench = Bench()
    given = toys.said("one\ntwo\nthree"), toys.said(""), toys.said("four")
    first = await bench.draw(*given)
    again = Bench(bench.fakes)
    found = await again.draw(*given)
    assert [drawn.item for drawn in found] == [drawn.item for drawn in first]
    assert not any(drawn.fresh for drawn in found)
    assert len(bench.inference.requests) == 1
    assert (again.tally.kept, again.tally.reasons) == (4, {"empty": 1})
    assert again.tally.rate() == 0.0, "nothing was done now"


@pytest.mark.parametrize("version", [1, 2])
async def test_a_stored_completion_with_a_newer_releases_finish_reason_is_that_items_rejection(
    use_pipelines: Callable[[dict[str, Pipeline]], None], version: int
) -> None:
    bench = Bench()
    given = toys.said("one"), toys.said("two")
    await bench.draw(*given)
    newer, _ = sorted(bench.dataset.of_kind(pb.KIND_COMPLETION), key=lambda record: record.completion.text)
    bench.dataset.records[newer.id].completion.finish_reason = "thought_limit"
    use_pipelines(toys.shapes(version=version))
    again = Bench(bench.fakes)
    [kept] = await again.draw(*given)
    assert kept.item.record.instruction.text == "two"
    [record] = again.rejections()
    assert record.rejection.reason == "internal-error"
    assert f"completion {newer.id} has finish reason 'thought_limit'" in record.rejection.detail
    assert "a newer release wrote it" in record.rejection.detail
    assert again.tally.reasons["internal-error"] == 1
    assert len(bench.inference.requests) == 1


async def test_a_stop_between_the_children_of_a_completion_leaves_none_out() -> None:
    bench = Bench()

    def stop(method: str, request: Message) -> None:
        if any(record.kind == pb.KIND_INSTRUCTION for record in getattr(request, "records", [])):
            first = [record for record in request.records if record.key]  # type: ignore[attr-defined]
            bench.dataset.put(*first[:1], collection=bench.store.collection)
            raise FailedPrecondition("the process is killed here")

    bench.dataset.control.before = stop
    with pytest.raises(RunFailed, match="killed"):
        await bench.draw(toys.said("one\ntwo\nthree"))
    bench.dataset.control.before = None
    found = await Bench(bench.fakes).draw(toys.said("one\ntwo\nthree"))
    assert [drawn.item.record.instruction.text for drawn in found] == ["one", "two", "three"]
    assert bench.inference.generated == 1


async def test_another_version_reads_what_was_written_and_asks_nothing(
    use_pipelines: Callable[[dict[str, Pipeline]], None],
) -> None:
    bench = Bench()
    first = await bench.draw(toys.said("one"), toys.said("two"))
    use_pipelines(toys.shapes(version=2))
    bench.inference.control.fail("generate", Internal("asked"))
    again = Bench(bench.fakes)
    found = await again.draw(toys.said("one"), toys.said("two"))
    assert [drawn.item.key for drawn in found] == [drawn.item.key for drawn in first], "the same draws"
    assert {drawn.item.record.id for drawn in found}.isdisjoint(drawn.item.record.id for drawn in first)
    assert [drawn.item.record.provenance.generated_tokens for drawn in found] == [1, 1]
    assert len(bench.inference.requests) == 1


async def test_the_first_completion_of_an_id_is_the_one_that_is_read() -> None:
    bench = Bench()

    def another_run_was_first(method: str, request: Message) -> None:
        for record in getattr(request, "records", []):
            if record.kind == pb.KIND_COMPLETION and record.id not in bench.dataset.records:
                other = pb.Record()
                other.CopyFrom(record)
                other.completion.text = "the other one"
                bench.dataset.put(other)

    bench.dataset.control.before = another_run_was_first
    [drawn] = await bench.draw(toys.said("this one"))
    assert drawn.item.record.instruction.text == "the other one"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("has 900 tokens; the model's context has 256 with at least one new token: shorten it", "prompt-too-long"),
        ("the endpoint answers 400: This model's maximum context length is 4096 tokens", "prompt-too-long"),
        ("the endpoint answers 413: Request too large", "prompt-too-long"),
        ("the endpoint answers 400: Unrecognized request argument supplied: seed", "prompt-refused"),
    ],
)
async def test_a_refused_prompt_says_why_and_is_found_again(said: str, reason: str) -> None:
    bench = Bench()
    bench.inference.control.fail("generate", InvalidArgument("prompt", said))
    assert not await bench.draw(toys.said("one"), toys.said("two"))
    assert not bench.rejections(), "inference may refuse everything"
    await bench.generation.settle()
    assert len(bench.rejections()) == 2
    for record in bench.rejections():
        assert (record.rejection.reason, list(record.parents)) == (reason, [SEED.id])
        assert said in record.rejection.detail
    assert not await Bench(bench.fakes).draw(toys.said("one"), toys.said("two"))
    assert len(bench.inference.requests) == 1


async def test_a_refused_setting_ends_the_run_and_rejects_no_item() -> None:
    bench = Bench()
    bench.inference.control.fail("generate", InvalidArgument("sampling.stop", "4 at most"))
    with pytest.raises(RunFailed, match=r"the settings of stage 'instructions': .*4 at most \(sampling\.stop\)"):
        await bench.draw(toys.said("one"))
    assert not bench.rejections()


async def test_an_answer_that_cannot_be_read_is_asked_for_again_and_then_told() -> None:
    bench = Bench()
    bench.inference.control.fail("generate", *(Internal("the endpoint's answer has no choice: {}") for _ in range(9)))
    with pytest.raises(RunFailed, match="has no choice"):
        await bench.draw(toys.said("one"))
    assert len(bench.inference.requests) == faults.INTERNAL_TRIES


@in_virtual_time
async def test_an_outage_that_ends_with_an_answer_that_cannot_be_read_is_no_reason_to_give_up() -> None:
    bench = Bench()
    away = [Unavailable("connection refused", retry_after=0.0)] * (2 * faults.INTERNAL_TRIES)
    bench.inference.control.fail("generate", *away, Internal("502 Bad Gateway"), *away, Internal("502 Bad Gateway"))
    assert await bench.draw(toys.said("one"))


@in_virtual_time
@pytest.mark.parametrize("error", [Unavailable("connection refused", retry_after=0.0), Internal("502 Bad Gateway")])
async def test_an_engine_that_goes_away_while_a_refusal_is_looked_into_is_waited_for(error: Exception) -> None:
    bench = Bench()
    bench.inference.control.fail("generate", FailedPrecondition("content policy"))
    bench.inference.control.fail("get_model", error)
    assert await bench.draw(toys.said("one"))
    assert not bench.rejections()


async def test_only_the_samples_that_are_owed_are_asked_for_again() -> None:
    bench, asked = Bench(), list[list[int]]()

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if sample.attempt == 1 and len(asked) == 1:
            raise Internal("out of memory")
        return toys.said(f"text {sample.attempt}")

    bench.inference.control.before = lambda method, request: (
        asked.append([sample.attempt for sample in request.samples])  # type: ignore[attr-defined]
        if method == "generate"
        else None
    )
    bench.inference.writes = write
    found: list[Drawn] = []
    await bench.generation.draw(ITEM, range(3), fresh=False, deliver=found.append)
    assert sorted(drawn.attempt for drawn in found) == [0, 1, 2]
    assert asked[0] == [0, 1, 2]
    assert 1 in asked[1]
    assert bench.inference.running == 0


async def test_a_closed_gate_gives_what_is_there_and_asks_for_nothing() -> None:
    bench = Bench()
    await bench.draw(toys.said("one"))
    again = Bench(bench.fakes)
    again.allowed = False
    found: list[Drawn] = []
    with pytest.raises(RunStopped):
        await again.generation.draw(ITEM, range(2), fresh=False, deliver=found.append)
    assert [drawn.attempt for drawn in found] == [0]
    assert len(bench.inference.requests) == 1


async def test_a_prompt_that_cannot_be_made_is_that_items_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def fail(item: Item, asked: object) -> str:
        raise RecursionError("maximum recursion depth exceeded during compilation")

    monkeypatch.setattr(bench.stage, "suffix", fail, raising=False)
    assert not await bench.draw(toys.said("one"))
    [record] = bench.rejections()
    assert record.rejection.reason == "internal-error"
    assert "test_generation.py" in record.rejection.evidence
    assert not bench.inference.requests


@pytest.mark.parametrize(
    "bodies", [[], [pb.Seed(code="of another kind")], ["no message"], [pb.Instruction(text="fine"), None]]
)
async def test_a_parser_that_gives_no_such_record_is_that_items_rejection(
    bodies: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    monkeypatch.setattr(bench.stage, "parse", lambda text, item, asked: bodies, raising=False)
    assert not await bench.draw(toys.said("one"))
    [record] = bench.rejections()
    assert record.rejection.reason == "internal-error"
    assert not bench.dataset.of_kind(pb.KIND_INSTRUCTION)


async def test_a_record_that_the_store_refuses_is_that_items_rejection() -> None:
    bench = Bench()

    def refuse(method: str, request: Message) -> None:
        if any(record.kind == pb.KIND_INSTRUCTION for record in getattr(request, "records", [])):
            raise InvalidArgument("records[0]", "is 20 MB; at most 16 MB")

    bench.dataset.control.before = refuse
    assert not await bench.draw(toys.said("one"))
    [record] = bench.rejections()
    assert record.rejection.reason == "internal-error"
    assert "at most 16 MB" in record.rejection.detail


@pytest.mark.parametrize("refused", [0, 1, 2])
async def test_of_several_records_of_a_completion_all_are_kept_or_the_completion_is_rejected(refused: int) -> None:
    bench = Bench()

    def refuse(method: str, request: Message) -> None:
        if any(record.instruction.text == f"line {refused}" for record in getattr(request, "records", [])):
            raise InvalidArgument("records[0]", "is 20 MB; at most 16 MB")

    bench.dataset.control.before = refuse
    completion = toys.said("line 0\nline 1\nline 2")
    assert not await bench.draw(completion)
    assert not await Bench(bench.fakes).draw(completion), "a run that goes on decides the same"
    [record] = bench.rejections()
    assert record.rejection.reason == "internal-error"


async def test_samples_depend_on_what_is_drawn_and_not_on_how_it_is_read(
    use_pipelines: Callable[[dict[str, Pipeline]], None],
) -> None:
    async def seeds(bench: Bench) -> list[int]:
        await bench.draw(toys.said("one"), toys.said("two"))
        [request] = bench.inference.requests
        return [sample.seed for sample in request.samples]

    first = await seeds(Bench())
    assert await seeds(Bench(seed=8)) != first
    use_pipelines(toys.shapes(version=2))
    assert await seeds(Bench()) == first
