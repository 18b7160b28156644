"""Selection: which candidates become rows, the decisions about the others, and the size of reads."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import InvalidArgument
from codealign.coordinator import pipelines
from codealign.coordinator.ground.faults import RunStopped
from codealign.coordinator.pipelines.stage import NOT_CHOSEN
from codealign.coordinator.runs.config import draws_id
from codealign.coordinator.runs.groups import Candidate, Group
from codealign.coordinator.runs.prompting import child_key
from codealign.coordinator.runs.selection import BATCH, CHOSEN
from codealign.coordinator.runs.strategies import FAILURES, STRATEGIES
from fakes import toys
from fakes.toys import SEEDS, Bench

VERDICTS = [
    sb.VERDICT_FAILED_ASSERTION,
    sb.VERDICT_PASSED,
    sb.VERDICT_FLAKY,
    sb.VERDICT_RAISED,
    sb.VERDICT_PASSED,
    sb.VERDICT_REFUSED,
]
"""Verdicts by attempt."""


def bench(strategy: str = "first-pass", seeds: int = 5, verdicts: list[sb.Verdict.ValueType] = VERDICTS) -> Bench:
    """Return a bench where each seed has its own instruction, and each response the verdict of its attempt."""
    made = Bench(toys.run_record("one-line", strategy))
    made.fakes.dataset.put(*toys.seeds(seeds), collection=SEEDS)

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        attempt = "" if request.prompt.startswith("instructions:") else f"attempt-{sample.attempt} "
        return toys.said(attempt + toys.digest(sample.seed))

    def judge(program: sb.Program) -> sb.Result:
        number = re.search(r"attempt-(\d)", program.code)
        # A mutant of a response may have no attempt, or another one.
        verdict = verdicts[int(number[1]) % len(verdicts)] if number else sb.VERDICT_FAILED_ASSERTION
        return sb.Result(verdict=verdict)

    made.fakes.inference.writes, made.fakes.sandbox.judges = write, judge
    return made


def attempts(made: Bench) -> list[int]:
    """Return the attempts of the rows."""
    return sorted(made.fakes.dataset.records[row.example.lineage[-1].record_id].attempt for row in made.examples())


def decisions(made: Bench) -> Counter[str]:
    """Count the decisions by rule, except those on seeds."""
    found = made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)
    return Counter(record.decision.rule for record in found if not record.decision.rule.startswith("seed."))


async def test_first_pass_takes_the_lowest_attempt_and_draws_no_round_after_it() -> None:
    made = bench("first-pass")
    await made.work()
    assert attempts(made) == [1] * 5
    assert len(made.fakes.dataset.of_kind(pb.KIND_RESPONSE)) == 10, "one round of two for each"
    [detail] = {
        record.decision.detail
        for record in made.fakes.dataset.of_kind(pb.KIND_DECISION)
        if record.decision.rule == CHOSEN
    }
    assert detail == "attempt 1 is the lowest that passed and meets the row rules; 2 of at most 6 were drawn"


async def test_random_pass_draws_all_and_takes_the_pass_that_its_key_draws() -> None:
    made = bench("random-pass", 12)
    await made.work()
    assert set(attempts(made)) == {1, 4}
    assert decisions(made) == {CHOSEN: 12, NOT_CHOSEN: 12}
    assert len(made.fakes.dataset.of_kind(pb.KIND_RESPONSE)) == 72


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "failures-only"])
def test_nothing_is_said_to_have_passed_where_nothing_is_executed(name: str) -> None:
    strategy = STRATEGIES[name]
    group = Group(b"", "key", eligible=[Candidate(attempt, 0, b"record", b"") for attempt in range(2)])
    assert not re.search("pass|execut|fail|verdict", f"{strategy.why(group, 0)}; {strategy.unexecuted_fact}")


async def test_failures_only_takes_what_was_executed_and_failed() -> None:
    made = bench("failures-only")
    await made.work()
    assert attempts(made) == [0] * 5
    assert decisions(made) == {CHOSEN: 5, NOT_CHOSEN: 5}, "of the two attempts that failed"
    assert list(made.fakes.dataset.published[0].verdicts) == list(FAILURES)


async def test_random_response_takes_one_that_was_executed_whatever_its_verdict() -> None:
    made = bench("random-response", 12)
    await made.work()
    assert decisions(made) == {CHOSEN: 12, NOT_CHOSEN: 48}, "five of six attempts were executed"
    assert len(made.fakes.dataset.of_kind(pb.KIND_RESPONSE)) == 72
    assert {0, 1} < set(attempts(made)), "some failed, some passed"


async def test_everything_takes_each_candidate_that_was_executed_whatever_its_verdict() -> None:
    made = bench("everything")
    await made.work()
    assert attempts(made) == sorted([0, 1, 2, 3, 4] * 5)
    assert decisions(made) == {CHOSEN: 25}


async def test_everything_still_drops_the_same_answer_of_one_group_and_all_of_a_duplicate_group() -> None:
    made = bench("everything", 3, [sb.VERDICT_PASSED] * 6)

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if request.prompt.startswith("instructions:"):
            return toys.said("the same instruction for all of them, word by word")
        return toys.said(f"attempt-{sample.attempt} {toys.digest(sample.seed if sample.attempt < 4 else 'the same')}")

    made.fakes.inference.writes = write
    made.fakes.sandbox.judges = lambda program: sb.Result(verdict=sb.VERDICT_PASSED)
    await made.work()
    assert len({row.example.lineage[1].record_id for row in made.examples()}) == 1
    assert decisions(made)["dedup.instruction"] == 12


async def test_a_row_that_falls_to_de_duplication_gives_its_place_to_the_next_candidate_drawn_if_it_must_be() -> None:
    made = bench("first-pass", 4, [sb.VERDICT_PASSED] * 6)

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if request.prompt.startswith("instructions:"):
            return toys.said(toys.digest(sample.seed))
        same = sample.attempt < 3
        return toys.said(f"attempt-{sample.attempt} {toys.digest('same' if same else sample.seed)}")

    made.fakes.inference.writes = write
    made.fakes.sandbox.judges = lambda program: sb.Result(verdict=sb.VERDICT_PASSED)
    await made.work()
    assert attempts(made) == [0, 1, 2, 3]
    fell = [
        record.decision
        for record in made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)
        if record.decision.rule.startswith("dedup.")
    ]
    assert all(each.duplicate_of in made.fakes.dataset.records for each in fell)
    details = [
        record.decision.detail
        for record in made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)
        if record.decision.rule == CHOSEN
    ]
    assert sum("before it fell to de-duplication" in each for each in details) == 3


async def test_rows_are_offered_in_the_order_of_their_groups_keys() -> None:
    made = bench("first-pass", 8, [sb.VERDICT_PASSED] * 6)
    made.fakes.inference.writes = lambda request, sample: toys.said(
        "the same instruction for all of them" if request.prompt.startswith("instr") else toys.digest(sample.seed)
    )
    made.fakes.sandbox.judges = lambda program: sb.Result(verdict=sb.VERDICT_PASSED)
    await made.work()
    [row] = made.examples()
    stage = pipelines.get("one-line").writing[0]
    keys = {
        seed.id: child_key(stage, draws_id(made.run.run, stage.name), seed.id, 0)
        for seed in made.fakes.dataset.of_kind(pb.KIND_SEED)
    }
    assert row.example.lineage[0].record_id == min(keys, key=lambda seed_id: keys[seed_id])


async def test_two_thousand_fallen_rows_make_no_more_calls_at_once_than_a_batch() -> None:
    count = 1000
    made = Bench(toys.run_record("no-execution"))
    made.settings.seeds_in_flight = 64
    made.fakes.dataset.put(*toys.seeds(count), collection=SEEDS)
    made.fakes.inference.writes = lambda request, sample: toys.said("the same answer from every seed there is")
    await made.work()
    fallen = made.progress["selection"].reasons.total()
    assert 1900 < fallen == 2 * made.progress["seeds"].kept - 1, "two attempts for each seed, one row in all"
    control, inference = made.fakes.dataset.control, made.fakes.inference.control
    assert max(control.most_in_flight.values()) <= 1, "reads and appends of all items travel together"
    assert inference.most_in_flight["generate"] <= 64
    assert control.calls["get"] <= 2 * fallen / BATCH + 64


async def test_records_are_read_in_batches_so_memory_holds_no_more_than_one() -> None:
    made, sizes = bench("first-pass", 3 * BATCH + 7, [sb.VERDICT_PASSED] * 6), list[int]()

    def look(method: str, request: Message) -> None:
        if method == "get":
            sizes.append(len(request.ids))  # type: ignore[attr-defined]

    made.fakes.dataset.control.before = look
    assert (await made.work()).rows == 3 * BATCH + 7
    assert max(sizes) <= 3 * BATCH


async def test_a_stop_while_fallen_rows_are_drawn_again_loses_nothing() -> None:
    def make() -> Bench:
        made = bench("first-pass", 4, [sb.VERDICT_PASSED] * 6)
        made.fakes.inference.writes = lambda request, sample: toys.said(
            toys.digest(sample.seed)
            if request.prompt.startswith("instr")
            else f"attempt-{sample.attempt} {toys.digest('same' if sample.attempt < 4 else sample.seed)}"
        )
        made.fakes.sandbox.judges = lambda program: sb.Result(verdict=sb.VERDICT_PASSED)
        return made

    whole = make()
    version = (await whole.work()).version
    for moment in range(0, 40, 3):
        made, asked = make(), 0

        def gate(limit: int = moment) -> None:
            nonlocal asked
            asked += 1
            if asked > limit:
                raise RunStopped("paused")

        made.gate = gate
        with contextlib.suppress(RunStopped):  # or it is through before the gate closes
            await made.work()
        made.gate = lambda: None
        assert (await made.work()).version == version
        assert made.fakes.inference.generated == whole.fakes.inference.generated


async def test_a_row_that_the_store_refuses_is_that_items_error() -> None:
    made, refused = bench("first-pass", 5, [sb.VERDICT_PASSED] * 6), list[str]()

    def refuse(method: str, request: Message) -> None:
        examples = [r for r in getattr(request, "records", []) if r.kind == pb.KIND_EXAMPLE]
        if method == "append" and examples:
            victim = refused[0] if refused else examples[0].example.instruction
            if any(each.example.instruction == victim for each in examples):
                refused.append(victim)
                raise InvalidArgument("records[0]", "is 20 MB; at most 16 MB")

    made.fakes.dataset.control.before = refuse
    outcome = await made.work()
    assert outcome.rows == 4
    errors = [each for each in made.rejections() if each.reason == "internal-error"]
    assert errors
    assert all("at most 16 MB" in each.detail for each in errors)


@pytest.mark.parametrize("strategy", ["first-pass", "everything"])
async def test_no_row_is_dropped_as_a_duplicate_of_one_that_the_store_refused(strategy: str) -> None:
    made = bench(strategy, 3, [sb.VERDICT_PASSED] * 6)

    def write(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if request.prompt.startswith("instructions:"):
            return toys.said("Add two numbers.")  # for every seed: the later rows are duplicates of the first
        return toys.said(f"attempt-{sample.attempt} {toys.digest(sample.seed)}")

    made.fakes.inference.writes = write
    refused = set[str]()

    def refuse(method: str, request: Message) -> None:
        examples = [r for r in getattr(request, "records", []) if r.kind == pb.KIND_EXAMPLE]
        if method == "append" and examples:
            if not refused:
                refused.add(examples[0].parents[0])
            if any(each.parents[0] in refused for each in examples):
                raise InvalidArgument("records[0]", "is 20 MB; at most 16 MB")

    made.fakes.dataset.control.before = refuse
    await made.work()
    [lost] = refused
    dropped = [r.decision for r in made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id) if r.decision.duplicate_of]
    rows = {row.parents[0] for row in made.examples()}
    assert rows
    assert dropped
    assert {each.duplicate_of for each in dropped} <= rows, "every duplicate is one of a row that is published"
    assert lost not in rows
    if strategy == "everything":
        assert len(rows) == 5, "all others of the refused row's group, which came first"


@pytest.mark.parametrize("strategy", list(STRATEGIES))
async def test_the_order_in_which_verdicts_come_changes_no_row(strategy: str) -> None:
    async def rows(delay: Callable[[str], int]) -> list[bytes]:
        made = bench(strategy, 6)
        judge = made.fakes.sandbox.judges

        async def later(program: sb.Program) -> sb.Result:
            for _ in range(delay(program.code)):
                await asyncio.sleep(0)
            result = judge(program)
            assert isinstance(result, sb.Result)
            return result

        made.fakes.sandbox.judges = later
        await made.work()
        return [row.SerializeToString(deterministic=True) for row in _without_times(made.examples())]

    assert await rows(lambda code: 0) == await rows(lambda code: sum(code.encode()) % 9)


def _without_times(found: list[pb.Record]) -> list[pb.Record]:
    for record in found:
        record.ClearField("provenance")
    return found
