"""The strategy "agreement": attempts at one instruction are compared with each other."""

from __future__ import annotations

import ast
import asyncio
import re
from collections import Counter

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.coordinator.ground.faults import RunStopped
from codealign.coordinator.pipelines.stage import CONTESTED, CONTRADICTED
from codealign.coordinator.runs.config import run_records, with_defaults
from fakes import toys
from fakes.programs import executed
from fakes.toys import SEEDS, Bench

ANSWERS = {
    "too-many": ("return sum(1 for value in values if value <= 5)", "assert {f}([6, 8]) == 0"),
    "right": ("return len([value for value in values if value < 5])", "assert {f}([4, 6]) == 1"),
    "right-too": ("return sum(value < 5 for value in values)", "assert {f}([1, 2, 9]) == 2"),
    "failing": ("return len(values)", "assert {f}([7]) == 0"),
    "greater": ("return len([value for value in values if value > 5])", "assert {f}([]) == 0"),
}
"""Bodies and tests of answers to "how many of the values are less than 5"."""


def run_program(program: sb.Program) -> sb.Result:
    """Execute one of this file's own programs."""
    passed, output = executed(program)
    verdict = sb.VERDICT_PASSED if passed else sb.VERDICT_FAILED_ASSERTION
    return sb.Result(verdict=verdict, stdout=sb.Output(data=output, total_bytes=len(output)), wall_seconds=0.01)


def bench(*answers: str, seeds: int = 1, round_size: int = 1) -> Bench:
    """Return a bench in which the attempts at every instruction are these answers, in this order."""
    stage = pb.StageSettings(stage="responses", attempts=len(answers), round_size=round_size)
    made = Bench(toys.run_record("selfcodealign", "agreement", stages=[stage]))
    texts = [f'def seed_{n}(x):\n    """Return {toys.digest(n)}."""\n    return x + {n}\n' for n in range(seeds)]
    found = [records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=text))) for text in texts]
    made.fakes.dataset.put(*found, collection=SEEDS)

    def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if request.prompt.startswith("# From code to concepts"):
            return stopped(request, "lists, counting")
        if request.prompt.startswith("# From concepts to tasks"):
            name = f"count_{toys.number(sample.seed)}"
            return stopped(request, f"Write `{name}(values)` that returns how many of {toys.digest(name)} are below 5.")
        name = re.findall(r"`(count_\d+)\(", request.prompt)[-1]
        body, tests = ANSWERS[answers[sample.attempt]]
        code = f"def {name}(values):\n    {body}"
        said = f"The {answers[sample.attempt]} way for {name}."
        tests = tests.format(f=name)
        return stopped(request, f"{said}\n\n```python\n{code}\n```\n</answer>\n<tests>\n```python\n{tests}\n```\n")

    made.fakes.inference.writes, made.fakes.sandbox.judges = writes, run_program
    return made


def stopped(request: inf.GenerateRequest, text: str) -> inf.Completion:
    stop = request.sampling.stop[0]
    return inf.Completion(text=text, finish_reason=inf.FINISH_REASON_STOP_STRING, stop_string=stop)


def attempts(made: Bench) -> list[int]:
    """Return the attempts of the rows."""
    found = made.fakes.dataset.records
    return [found[row.example.lineage[-1].record_id].attempt for row in made.examples()]


async def test_a_row_that_another_strategy_made_before_still_says_how_it_compares() -> None:
    made = bench("right", "right-too")
    answers, verdicts = made.fakes.inference.writes, made.fakes.sandbox.judges
    stage = pb.StageSettings(stage="responses", attempts=2, round_size=1)
    before = Bench(toys.run_record("selfcodealign", "first-pass", stages=[stage]), fakes=made.fakes)
    made.fakes.inference.writes, made.fakes.sandbox.judges = answers, verdicts
    assert (await before.work()).rows == 1
    # The stronger tests fail, so that the verdict remains the one on the response's own.
    made.fakes.sandbox.judges = lambda program: (
        sb.Result(verdict=sb.VERDICT_FAILED_ASSERTION) if program.tests.count("assert") > 1 else run_program(program)
    )
    await made.work()
    (row,) = made.examples()
    assert row.example.attempts == 2
    assert row.example.judgement_id
    (earlier,) = before.examples()
    assert not earlier.example.judgement_id


def dropped(made: Bench, rule: str) -> list[pb.Record]:
    decisions = made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)
    return [record for record in decisions if record.decision.rule == rule]


async def test_a_pass_that_others_contradict_is_no_row() -> None:
    made = bench("too-many", "right", "right-too")
    assert (await made.work()).rows == 1
    assert set(attempts(made)) <= {1, 2}
    left_out = dropped(made, CONTRADICTED)
    assert {made.fakes.dataset.records[each.parents[0]].attempt for each in left_out} == {0}
    assert all("contradicts 2 of 2 other attempts" in each.decision.detail for each in left_out)


async def test_a_row_says_how_its_response_compares() -> None:
    made = bench("too-many", "right", "right-too")
    await made.work()
    (row,) = made.examples()
    example = row.example
    assert (example.attempts, example.class_size) == (3, 2)
    assert example.tests_share == 1.0
    assert example.HasField("mutation_score")
    judgement = made.fakes.dataset.records[example.judgement_id].judgement
    assert judgement.best == example.lineage[-1].record_id
    assert [each.class_number for each in judgement.attempts] == [2, 1, 1]
    assert judgement.inputs > 0
    fates = Counter(each.fate for each in judgement.mutants)
    killed, survived = fates[pb.JudgedMutant.FATE_KILLED], fates[pb.JudgedMutant.FATE_SURVIVED]
    assert example.mutation_score == pytest.approx(killed / (killed + survived), abs=1e-5)
    assert len(example.surviving_mutants) == survived > 0
    assert list(judgement.pairs) == [pb.PAIR_RESULT_PASSED] * 9, (
        "no tests try 5: only the inputs tell the classes apart"
    )
    (told,) = judgement.telling_inputs
    assert [each.class_number for each in told.classes] == [1, 2]
    right, wrong = (int(each.outcome.removeprefix("returns ")) for each in told.classes)
    values = ast.literal_eval(told.arguments.removeprefix("values="))
    assert (right, wrong) == (sum(each < 5 for each in values), sum(each <= 5 for each in values))
    for each in judgement.mutants:
        assert bool(each.input) == (each.fate == pb.JudgedMutant.FATE_SURVIVED)
        assert not each.input or each.expected != each.outcome


async def test_added_tests_are_executed_before_they_are_published() -> None:
    made = bench("too-many", "right", "right-too")
    await made.work()
    (row,) = made.examples()
    example = row.example
    assert example.added_tests
    assert all(line in example.tests.splitlines() for line in example.added_tests)
    response = made.fakes.dataset.records[example.lineage[-1].record_id].response
    assert example.tests.startswith(response.tests.rstrip("\n"))
    verdict = made.fakes.dataset.records[example.verdict_id]
    assert verdict.parents == [example.lineage[-1].record_id, example.judgement_id]
    assert verdict.verdict.result.verdict == sb.VERDICT_PASSED
    assert row.parents == [example.lineage[-1].record_id, example.verdict_id]
    requests = [request.program for request in made.fakes.sandbox.requests]
    assert [each.tests for each in requests].count(example.tests) == 1, "what was executed once is not executed again"
    wrong, _ = ANSWERS["too-many"]
    name = re.findall(r"def (count_\d+)", response.code)[0]
    stronger = sb.Program(code=f"def {name}(values):\n    {wrong}", tests=example.tests)
    assert run_program(stronger).verdict == sb.VERDICT_FAILED_ASSERTION, "the added tests detect the wrong answer"


async def test_a_row_has_no_tests_that_its_verdict_is_not_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codealign.coordinator.ground.calls._PAUSE_SECONDS", 0.0)
    made = bench("too-many", "right", "right-too")
    await made.work()
    (row,) = made.examples()
    assert row.example.added_tests
    # As if the coordinator had been killed between the judgement and its verdict.
    for record_id in [row.id, row.example.verdict_id]:
        del made.fakes.dataset.records[record_id]
        made.fakes.dataset.collections[made.run.id].discard(record_id)
    made.fakes.sandbox.judges = lambda _: sb.Result(verdict=sb.VERDICT_INFRASTRUCTURE)
    await made.work()
    (row,) = made.examples()
    example = row.example
    response_id = example.lineage[-1].record_id
    assert made.fakes.dataset.records[example.verdict_id].parents == [response_id]
    assert example.tests == made.fakes.dataset.records[response_id].response.tests
    assert not example.added_tests
    assert example.HasField("mutation_score")


async def test_attempts_that_only_contradict_each_other_give_no_row() -> None:
    made = bench("too-many", "greater", "right")
    outcome = await made.work()
    assert outcome.rows == 0
    assert len(dropped(made, CONTESTED)) == 3


async def test_drawing_stops_when_two_attempts_agree() -> None:
    made = bench("right", "right-too", "too-many", "right")
    await made.work()
    assert len(made.fakes.dataset.of_kind(pb.KIND_RESPONSE, made.run.id)) == 2
    made = bench("right", "too-many", "right-too", "right")
    await made.work()
    assert len(made.fakes.dataset.of_kind(pb.KIND_RESPONSE, made.run.id)) > 2


async def test_a_run_carried_out_again_executes_nothing() -> None:
    made = bench("too-many", "right", "failing", "right-too")
    await made.work()
    rows, requests = made.rows(), len(made.fakes.sandbox.requests)
    assert rows
    await made.work()
    assert made.rows() == rows
    assert len(made.fakes.sandbox.requests) == requests


async def test_a_comparison_that_was_interrupted_anywhere_is_completed() -> None:
    whole = bench("too-many", "right", "right-too")
    await whole.work()
    wanted = [row.example.SerializeToString(deterministic=True) for row in whole.examples()]
    # Remove what was recorded last, as if the coordinator had been killed before.
    kinds = (pb.KIND_EXAMPLE, pb.KIND_DECISION, pb.KIND_JUDGEMENT, pb.KIND_TRIAL)
    for count in range(1, len(kinds) + 1):
        made = bench("too-many", "right", "right-too")
        await made.work()
        lost = {
            record.id
            for record in made.fakes.dataset.records.values()
            if record.kind in kinds[:count] or (record.kind == pb.KIND_VERDICT and len(record.parents) > 1)
        }
        for record_id in lost:
            del made.fakes.dataset.records[record_id]
        await made.work()
        assert [row.example.SerializeToString(deterministic=True) for row in made.examples()] == wanted


async def test_a_run_that_is_stopped_in_a_comparison_leaves_nothing_in_flight_and_is_completed_later() -> None:
    whole = bench("too-many", "right", "right-too")
    await whole.work()
    made = bench("too-many", "right", "right-too")
    running = 0

    async def judges(program: sb.Program) -> sb.Result:
        nonlocal running
        running += 1
        await asyncio.sleep(0)
        running -= 1
        return run_program(program)

    def gate() -> None:
        if len(made.fakes.sandbox.requests) > 4:
            raise RunStopped("paused")

    made.fakes.sandbox.judges, made.gate = judges, gate
    with pytest.raises(RunStopped):
        await made.work()
    assert running == 0
    assert not made.examples()
    made.gate = lambda: None
    await made.work()
    assert made.rows() == whole.rows()


async def test_infrastructure_faults_count_neither_for_nor_against_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codealign.coordinator.ground.calls._PAUSE_SECONDS", 0.0)
    made = bench("right", "right-too", "too-many", round_size=3)

    def judges(program: sb.Program) -> sb.Result:
        own = run_program(program)
        mixed = "value <= 5" in program.code and "[6, 8]" not in program.tests
        return sb.Result(verdict=sb.VERDICT_INFRASTRUCTURE) if mixed else own

    made.fakes.sandbox.judges = judges
    assert (await made.work()).rows == 1
    assert attempts(made) != [2]
    trials = made.fakes.dataset.of_kind(pb.KIND_TRIAL, made.run.id)
    assert trials
    assert all(each.trial.result.verdict != sb.VERDICT_INFRASTRUCTURE for each in trials)


async def test_another_run_does_not_take_a_judgement_that_an_outage_had_a_part_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("codealign.coordinator.ground.calls._PAUSE_SECONDS", 0.0)
    made = bench("right", "too-many", round_size=2)

    def judges(program: sb.Program) -> sb.Result:
        own = run_program(program) if program.tests.startswith("assert") else None
        return own or sb.Result(verdict=sb.VERDICT_INFRASTRUCTURE)

    made.fakes.sandbox.judges = judges
    await made.work()
    (first,) = made.fakes.dataset.of_kind(pb.KIND_JUDGEMENT, made.run.id)
    await made.work()
    assert made.fakes.dataset.of_kind(pb.KIND_JUDGEMENT, made.run.id) == [first], "the run itself keeps it"
    other = pb.Run()
    other.CopyFrom(made.run.run)
    other.seeds.limit = 9
    made.run, made.fakes.sandbox.judges = run_records(other)[1], run_program
    await made.work()
    (second,) = made.fakes.dataset.of_kind(pb.KIND_JUDGEMENT, made.run.id)
    assert second.parents == first.parents
    assert second.judgement.telling_inputs
    assert not first.judgement.telling_inputs


async def test_a_verdict_is_about_the_tests_of_the_judgement_that_was_first() -> None:
    """Another run with the same attempts recorded a judgement meanwhile, with other added tests."""
    made = bench("too-many", "right", "right-too")
    await made.work()
    (row,) = made.examples()
    judgement = made.fakes.dataset.records[row.example.judgement_id]
    theirs = pb.Record()
    theirs.CopyFrom(judgement)
    (one, *_) = theirs.judgement.added_tests
    one.text = f"{one.text}  # theirs"
    theirs.judgement.tests = theirs.judgement.tests.replace(judgement.judgement.added_tests[0].text, one.text)
    for record_id in (row.id, row.example.verdict_id, judgement.id):
        del made.fakes.dataset.records[record_id]
        made.fakes.dataset.collections[made.run.id].discard(record_id)

    def judges(program: sb.Program) -> sb.Result:
        if judgement.id not in made.fakes.dataset.records:  # while the comparison is going on
            made.fakes.dataset.put(theirs)
        return run_program(program)

    made.fakes.sandbox.judges = judges
    await made.work()
    (row,) = made.examples()
    assert row.example.tests == theirs.judgement.tests
    executed = [request.program.tests for request in made.fakes.sandbox.requests]
    assert theirs.judgement.tests in executed


async def test_a_result_that_a_limit_had_a_part_in_is_not_recorded() -> None:
    made = bench("right", "right-too", "too-many", round_size=3)

    def judges(program: sb.Program) -> sb.Result:
        own = run_program(program)
        if "value <= 5" in program.code and "[6, 8]" not in program.tests:
            own.verdict = sb.VERDICT_FLAKY
            own.run_verdicts.extend([sb.VERDICT_PASSED, sb.VERDICT_TIMED_OUT])
        return own

    made.fakes.sandbox.judges = judges
    assert (await made.work()).rows == 1
    trials = made.fakes.dataset.of_kind(pb.KIND_TRIAL, made.run.id)
    assert trials
    assert all(sb.VERDICT_TIMED_OUT not in each.trial.result.run_verdicts for each in trials)


@pytest.mark.parametrize(
    ("run", "field"),
    [
        (pb.Run(pipeline="oss-instruct"), "config.selection.strategy"),
        (pb.Run(pipeline="imported"), "config.selection.strategy"),
        (pb.Run(target=pb.Target(rows=9)), "config.target"),
    ],
)
def test_where_nothing_can_be_compared_the_strategy_is_refused(run: pb.Run, field: str) -> None:
    run.seeds.collection = "seeds"
    run.selection.strategy = "agreement"
    with pytest.raises(InvalidArgument) as caught:
        with_defaults(run)
    assert field in [path for path, _ in caught.value.violations]
