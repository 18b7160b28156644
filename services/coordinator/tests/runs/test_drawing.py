"""Runs with a target: exactly as many rows, the same ones whatever the order of completion and interruptions."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import InvalidArgument
from codealign.coordinator.ground.faults import RunStopped
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.pipelines.stage import TARGET_REACHED
from codealign.coordinator.runs.progress import stored_progress
from codealign.coordinator.runs.runner import Outcome
from fakes import toys
from fakes.toys import SEEDS, Bench

SHAPES = sorted(toys.shapes())
EVERY = [*((name, "first-pass") for name in SHAPES), ("fan-out", "random-pass"), ("one-line", "everything")]
"""Every shape and every strategy."""


def bench(name: str, count: int = 30, *, strategy: str = "first-pass", **target: float) -> Bench:
    made = Bench(toys.run_record(name, strategy, target=pb.Target(**target)))  # type: ignore[arg-type]
    made.fakes.dataset.put(*toys.seeds(count), collection=SEEDS)
    return made


def version(found: Bench, outcome: Outcome) -> list[bytes]:
    """Return the bytes of the published rows."""
    rows = found.fakes.dataset.versions[outcome.version]
    return [row.id.encode() + row.example.SerializeToString(deterministic=True) for row in rows]


def summary(found: Bench) -> pb.TargetSummary:
    logs = found.fakes.dataset.of_kind(pb.KIND_WORK_LOG, found.run.id)
    [record] = [record for record in logs if record.key == "summary"]
    return record.work_log.summary


def at_random(made: Bench, seed: int) -> None:
    """Let every completion and verdict take a random number of steps."""
    luck = random.Random(seed)

    async def later(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        for _ in range(luck.randrange(20)):
            await asyncio.sleep(0)
        return toys.writes(request, sample)

    async def judged(program: sb.Program) -> sb.Result:
        for _ in range(luck.randrange(20)):
            await asyncio.sleep(0)
        return toys.judges(program)

    made.fakes.inference.writes, made.fakes.sandbox.judges = later, judged


@pytest.mark.parametrize(("name", "strategy"), EVERY)
async def test_exactly_the_wanted_rows_are_published(name: str, strategy: str) -> None:
    made = bench(name, strategy=strategy, rows=5)
    outcome = await made.work()
    assert outcome.rows == len(made.examples()) == len(version(made, outcome)) == 5
    assert outcome.message == "5 rows; the target is reached"
    assert summary(made).why == "rows"
    assert summary(made).seeds < 30, "not every seed is used"


@pytest.mark.parametrize(("name", "strategy"), EVERY)
async def test_neither_concurrency_nor_the_order_of_completion_changes_the_bytes(name: str, strategy: str) -> None:
    found = []
    for seed, in_flight in ((0, 0), (1, 3)):
        made = bench(name, strategy=strategy, rows=6, window=6)
        made.settings.seeds_in_flight = made.settings.generations_in_flight = in_flight
        at_random(made, seed)
        found.append((version(made, await made.work()), summary(made), made.fakes.inference.generated))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["one-line", "fan-out"])
async def test_a_run_that_stops_at_any_append_publishes_the_same_bytes(name: str) -> None:
    target: dict[str, Any] = {"rows": 3, "window": 4}
    whole = bench(name, 5, **target)
    expected = version(whole, await whole.work())
    for stop_after in range(0, whole.fakes.dataset.control.calls["append"], 9):
        made, seen = bench(name, 5, **target), 0

        def stop(method: str, request: Message, limit: int = stop_after) -> None:
            nonlocal seen
            seen += method == "append"
            if seen > limit:
                raise InvalidArgument("records", "stop here") if method == "append" else asyncio.CancelledError

        made.fakes.dataset.control.before = stop
        with pytest.raises((asyncio.CancelledError, Exception)):
            await made.work()
        made.fakes.dataset.control.before = None
        at_random(made, stop_after)
        assert version(made, await made.work()) == expected, f"stopped after {stop_after} appends"


@pytest.mark.parametrize(
    ("name", "target"), [("one-line", {"rows": 5}), ("fan-out", {"rows": 5}), ("one-line", {"tokens": 1500})]
)
async def test_a_pause_at_any_moment_changes_nothing_and_asks_nothing_twice(name: str, target: dict[str, Any]) -> None:
    whole = bench(name, 6, window=6, **target)
    expected = version(whole, await whole.work())
    for moment in range(0, 30, 9):
        made, asked = bench(name, 6, window=6, **target), 0

        def gate(limit: int = moment) -> None:
            nonlocal asked
            asked += 1
            if asked > limit:
                raise RunStopped("paused")

        made.gate = gate
        at_random(made, moment)
        try:
            await made.work()
        except RunStopped:
            assert made.fakes.inference.running == 0
        made.gate = lambda: None
        assert version(made, await made.work()) == expected
        assert made.fakes.inference.generated == whole.fakes.inference.generated


async def test_a_target_beyond_the_seeds_ends_with_what_there_is_and_says_why() -> None:
    made = bench("one-line", 6, rows=50)
    outcome = await made.work()
    assert 0 < outcome.rows < 50
    assert "all seeds and all attempts are used up before the target of 50 rows: collect more" in outcome.message
    without = Bench(toys.run_record("one-line"))
    without.fakes.dataset.put(*toys.seeds(6), collection=SEEDS)
    await without.work()
    assert {row[0] for row in made.rows()} == {row[0] for row in without.rows()}, "the same instructions"


async def test_candidates_in_flight_when_the_target_is_reached_are_dropped_by_a_rule_of_the_run() -> None:
    made = bench("fan-out", rows=3, window=20)
    await made.work()
    dropped = [
        record
        for record in made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)
        if record.decision.rule == TARGET_REACHED
    ]
    assert dropped
    assert all(record.parents[1] == made.run.id for record in dropped)
    assert made.progress["selection"].reasons[TARGET_REACHED] == len(dropped)
    stored = stored_progress(made.run.run, await made.counts())
    assert stored["selection"].reasons == made.progress["selection"].reasons
    assert stored["selection"].kept == 3


async def test_a_budget_of_tokens_is_counted_from_completions_and_kept() -> None:
    made = bench("one-line", 200, tokens=6000)
    outcome = await made.work()
    assert "the budget of 6,000 tokens is used up" in outcome.message
    assert 5000 < summary(made).tokens <= 6000
    completions = made.fakes.dataset.of_kind(pb.KIND_COMPLETION, made.run.id)
    generated = sum(record.provenance.generated_tokens for record in completions)
    assert summary(made).tokens > generated


async def test_a_cache_at_the_engine_does_not_change_what_counts() -> None:
    found = []
    for cached in (0, 5):
        made = bench("one-line", tokens=3000)

        def writes(request: inf.GenerateRequest, sample: inf.Sample, cached: int = cached) -> inf.Completion:
            completion = toys.writes(request, sample)
            completion.cached_prompt_tokens = cached
            return completion

        made.fakes.inference.writes = writes
        found.append((version(made, await made.work()), summary(made)))
    assert found[0] == found[1]


async def test_candidates_that_fall_to_de_duplication_are_replaced_until_the_target_is_reached() -> None:
    made = bench("one-line", 60, rows=10, window=5)

    def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if request.prompt.startswith("instructions"):
            return toys.said(toys.digest(sample.seed))
        few = toys.number(sample.seed) % 3  # most answers repeat one of a few
        return toys.said(
            toys.digest("same", toys.number(sample.seed, "which") % 4) if few else toys.digest(sample.seed)
        )

    made.fakes.inference.writes = writes
    assert (await made.work()).rows == 10
    assert made.progress["selection"].reasons["dedup.response"] > 3


async def test_a_row_that_the_store_refuses_is_replaced() -> None:
    whole = bench("one-line", rows=6)
    expected = version(whole, await whole.work())
    refused = whole.examples()[2].example.response
    made = bench("one-line", rows=6)

    def refuse(_: str, request: Message) -> None:
        if isinstance(request, ds.AppendRequest) and any(
            record.kind == pb.KIND_EXAMPLE and record.example.response == refused for record in request.records
        ):
            raise InvalidArgument("records[0]", "too large")

    made.fakes.dataset.control.before = refuse
    outcome = await made.work()
    assert outcome.rows == 6
    assert version(made, outcome) != expected
    assert version(made, await made.work()) == version(made, outcome)


async def test_an_undecided_program_is_executed_again_by_a_resumed_run() -> None:
    """An infrastructure fault becomes no verdict: the resumed run publishes what an undisturbed one does."""
    whole = bench("one-line", rows=5, window=4)
    expected = version(whole, await whole.work())
    made, faults, asked = bench("one-line", rows=5, window=4), 0, 0

    def judges(program: sb.Program) -> sb.Result:
        nonlocal faults
        result = toys.judges(program)
        if result.verdict == sb.VERDICT_PASSED and made.fakes.sandbox.control.calls["execute"] > 3:
            faults += 1
            return sb.Result(verdict=sb.VERDICT_INFRASTRUCTURE)
        return result

    def gate() -> None:
        nonlocal asked
        asked += 1
        if asked > 60:
            raise RunStopped("paused")

    made.fakes.sandbox.judges, made.gate = judges, gate
    with pytest.raises(RunStopped):
        await made.work()
    assert faults
    made.fakes.sandbox.judges, made.gate = toys.judges, lambda: None
    assert version(made, await made.work()) == expected


async def test_device_hours_stop_the_run_and_a_resumed_run_stops_at_the_same_action(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bench("one-line", 200, device_hours=1.0, devices=2, window=4)
    seconds = 0.0
    monkeypatch.setattr(StageTally, "busy_seconds", property(lambda tally: seconds))

    def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        nonlocal seconds
        seconds += 20
        return toys.writes(request, sample)

    made.fakes.inference.writes = writes
    outcome = await made.work()
    assert "the budget of 1 device hours is used up" in outcome.message
    generated = made.fakes.inference.generated
    assert 90 <= generated < 110, "half an hour with two devices, and what was in flight"
    again = await made.work()
    assert version(made, again) == version(made, outcome)
    assert made.fakes.inference.generated == generated
    [stop] = [r for r in made.fakes.dataset.of_kind(pb.KIND_WORK_LOG, made.run.id) if r.key == "stop"]
    assert stop.work_log.stop.device_hours >= 1


async def test_the_first_of_several_targets_ends_the_run() -> None:
    few = bench("one-line", 60, rows=4, tokens=10**6)
    assert (await few.work()).rows == 4
    dear = bench("one-line", 60, rows=50, tokens=2000)
    assert "tokens is used up before the target of 50 rows" in (await dear.work()).message


async def test_the_summary_shows_what_was_left_and_how_the_mix_moved() -> None:
    made = bench("one-line", 200, rows=20, window=4)

    def judges(program: sb.Program) -> sb.Result:
        easy = toys.number(program.code.split()[2]) % 2  # the first word of the answer is the instruction's
        return sb.Result(verdict=sb.VERDICT_PASSED if easy else sb.VERDICT_FAILED_ASSERTION)

    def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if request.prompt.startswith("instructions"):
            return toys.said(toys.digest(sample.seed))
        return toys.said(f"{request.prompt.splitlines()[1].split()[0]} {toys.digest(sample.seed)}")

    made.fakes.sandbox.judges, made.fakes.inference.writes = judges, writes
    assert (await made.work()).rows == 20
    found = summary(made)
    assert found.left_instructions > 5
    assert found.left_attempts > found.left_instructions
    assert found.left_tokens > 0


async def test_progress_has_a_forecast_while_the_run_draws() -> None:
    made = bench("one-line", 60, rows=20, window=4)
    texts: list[str] = []

    def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if made.progress.forecast is not None:
            texts.append(made.progress.forecast().text)
        return toys.writes(request, sample)

    made.fakes.inference.writes = writes
    await made.work()
    assert texts[0].startswith("0 of 20 rows")
    assert "tokens per further row; about 20 rows" in texts[-1]
    assert made.progress.forecast is None


async def test_the_kept_response_of_an_instruction_is_a_random_pass(use_answers: Callable[[Bench], None]) -> None:
    """Draw many instructions, each with the same five passing answers and failing ones, and compare what is kept."""
    made = bench("one-line", 200, rows=120, window=16)
    use_answers(made)
    outcome = await made.work()
    assert outcome.rows == 120
    kept = Counter(row.example.response.split()[0] for row in made.examples())
    assert set(kept) == set(WEIGHTS) - {"wrong"}
    total = sum(weight for answer, weight in WEIGHTS.items() if answer != "wrong")
    squares = sum(
        (kept[answer] - 120 * weight / total) ** 2 / (120 * weight / total)
        for answer, weight in WEIGHTS.items()
        if answer != "wrong"
    )
    assert squares < 9.49, "the 5% point of chi-squared with 4 degrees of freedom"


WEIGHTS = {"wrong": 60, "one": 2, "two": 4, "three": 8, "four": 12, "five": 14}
"""How often the model writes each answer; all but one pass."""


@pytest.fixture
def use_answers() -> Callable[[Bench], None]:
    """Return a function that lets a model write one of a few answers; instructions differ in their pass rate."""

    def use(made: Bench) -> None:
        def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
            if request.prompt.startswith("instructions"):
                return toys.said(toys.digest(sample.seed))
            hard = toys.number(request.prompt.splitlines()[1], "hard") % 4
            weights = {**WEIGHTS, "wrong": WEIGHTS["wrong"] * hard}
            luck = random.Random(sample.seed)
            [answer] = luck.choices(list(weights), list(weights.values()))
            return toys.said(f"{answer} {toys.digest(sample.seed)}")

        def judges(program: sb.Program) -> sb.Result:
            failed = "'wrong" in program.code
            return sb.Result(verdict=sb.VERDICT_FAILED_ASSERTION if failed else sb.VERDICT_PASSED)

        made.fakes.inference.writes, made.fakes.sandbox.judges = writes, judges

    return use
