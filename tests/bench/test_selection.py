"""The strategies' choices are those of real runs, and what is measured about them is right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.runs.config import run_records, with_defaults
from codealign.coordinator.runs.strategies import STRATEGIES
from codealign.nano import examples, functions, judgement, truth
from codealign.nano.judgement import Checks, Judgement, Outcome
from fakes.inference import REVISION
from fakes.toys import SEEDS, Bench
from tests.bench import choosing
from tests.bench.agreeing import Agreement
from tests.bench.choosing import Attempt, Choice, Task, choose, compare, comparison, measure, table
from tests.bench.judged import Executions, Sandbox, key_of
from tests.bench.selection import Finished, checks_of, judge, report
from trainer.nano.tests.executing import execute

COUNT, ATTEMPTS = 25, 4
RIGHT, WRONG, UNKNOWN = Outcome


def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    """Write as nano does: correct and wrong answers with their tests, some of which are wrong or missing."""
    dice = random.Random(sample.seed)
    example = examples.draw_example(dice)
    if request.prompt.startswith("# From code to concepts"):
        text = ", ".join(example.composition.concepts)
    elif request.prompt.startswith("# From concepts to tasks"):
        text = example.instruction
    else:
        meaning = truth.parse(request.prompt.rpartition("<task>\n")[2].partition("\n</task>")[0])
        assert meaning is not None
        names = functions.Names(meaning.function, meaning.parameter, "e", "out")
        example = examples.write_example(dice, meaning.composition, names, wrong_share=0.4)
        text = f"{example.response}\n</answer>\n<tests>\n```python\n{example.tests}\n```\n"
        if dice.random() < 0.05:
            text = f"First, TODO. {text}"
    return inf.Completion(text=text, finish_reason=inf.FINISH_REASON_STOP_STRING, stop_string=request.sampling.stop[0])


async def carried_out(strategy: str) -> Bench:
    """Return a run of the real pipeline over the fakes."""
    run = pb.Run(pipeline="selfcodealign", seeds=pb.SeedSelection(collection=SEEDS), seed=5)
    run.model.model, run.model.revision = "model", REVISION
    run.selection.strategy, run.few_shot_set = strategy, "nano"
    run.stages.add(stage="responses", attempts=ATTEMPTS)
    bench = Bench(run_records(with_defaults(run))[1])
    bench.fakes.inference.writes = writes
    bench.fakes.sandbox.judges = execute
    dice = random.Random(1)
    for _ in range(COUNT):
        composition = functions.draw(dice)
        code = examples.write_function(dice, composition, functions.draw_names(dice, composition))
        record = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=code)))
        bench.fakes.dataset.put(record, collection=SEEDS)
    await bench.work()
    return bench


def execute_all(programs: Sequence[sb.Program], limits: Sequence[sb.Limits] = ()) -> list[sb.Result]:
    return [execute(each) for each in programs]


@pytest.fixture(scope="module")
async def whole() -> Finished:
    """A run that took everything."""
    bench = await carried_out("everything")
    return Finished(bench.run, {record.id: record for record in bench.fakes.dataset.records.values()})


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_strategy_chooses_what_a_run_with_it_publishes(
    strategy: str, whole: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await carried_out(strategy)
    if STRATEGIES[strategy].compares:
        monkeypatch.setitem(choosing.ORDERS, strategy, Agreement(execute_all, in_steps=True))
    published = {row.example.lineage[-1].record_id for row in bench.examples()}
    rules = whole.pipeline.selection.duplicate_rules
    # In a thread, since the comparison of attempts begins an event loop of its own.
    rows = await asyncio.to_thread(choose, strategy, whole.tasks(), whole.run.run, rules)
    chosen = {each.attempt.record_id for each in rows}
    assert len(published) > 5
    assert chosen == published


def test_every_attempt_is_judged_by_truth_and_by_its_own_tests(whole: Finished, tmp_path: Path) -> None:
    tasks = whole.tasks()
    executions = Executions(tmp_path / "judged.jsonl", results)
    by_truth, by_tests = (judge(tasks, checks, executions) for checks in checks_of(tasks))
    attempts = [attempt for task in tasks for attempt in task.attempts]
    assert {each.record_id for each in attempts} == set(by_truth) == set(by_tests)
    outcomes = [each.outcome for each in by_truth.values()]
    assert UNKNOWN not in outcomes
    assert min(outcomes.count(RIGHT), outcomes.count(WRONG)) > len(attempts) / 5
    rows = [each for each in attempts if each.verdict == sb.VERDICT_PASSED]
    wrong = {each.record_id for each in rows if by_tests[each.record_id].outcome is WRONG}
    assert wrong, "wrong tests that wrong code passes, or right code by chance"
    text = report(whole, tasks, by_truth, by_tests)
    assert f"the meaning of {len(tasks)} tasks is known" in text
    assert all(f"\n| {name} |" in text for name in choosing.ORDERS)
    assert "| random-pass | first-pass |" in text
    assert "| everything | first-pass |" not in text


def results(requests: Iterable[sb.ExecuteRequest]) -> Iterator[sb.Result]:
    for request in requests:
        result = execute(request.program)
        result.request_id = request.request_id
        yield result


def test_a_program_is_executed_once_and_faults_are_not_kept(tmp_path: Path) -> None:
    asked: list[str] = []

    def count(requests: Iterable[sb.ExecuteRequest]) -> Iterator[sb.Result]:
        for request in requests:
            asked.append(request.program.code)
            verdict = sb.VERDICT_INFRASTRUCTURE if "faulty" in request.program.code else sb.VERDICT_FAILED_ASSERTION
            yield sb.Result(request_id=request.request_id, verdict=verdict, stdout=sb.Output(data=b"3 [4]"))

    programs = [sb.Program(code=code, tests="assert x") for code in ("x = 0", "faulty", "x = 0")]
    for _ in range(2):
        found = Executions(tmp_path / "judged.jsonl", count).of(programs)
        assert [result.verdict for result in found] == [
            sb.VERDICT_FAILED_ASSERTION,
            sb.VERDICT_INFRASTRUCTURE,
            sb.VERDICT_FAILED_ASSERTION,
        ]
        assert found[0].stdout.data == b"3 [4]"
    assert asked == ["x = 0", "faulty", "faulty"]
    (line,) = (tmp_path / "judged.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == key_of(programs[0])


@pytest.mark.gvisor
def test_the_sandbox_tells_what_a_wrong_answer_returns() -> None:
    task = "Write a function `f(p)` that returns the sum of the numbers in `p` that are greater than 3."
    checks = judgement.checks(task)
    assert checks is not None
    bodies = ("return sum(x for x in p if x > 3)", "return sum(x for x in p if x >= 3)", "return max(p)", "return (")
    codes = [f"def f(p):\n    {body}\n" for body in bodies] + ["f = None", "raise SystemExit"]
    programs = [checks.program(code) for code in codes]
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        found = Executions(Path(folder) / "judged.jsonl", Sandbox(stack).execute).of(programs)
    right, wrong, raising, *others = map(checks.judgement, found)
    assert right == Judgement(RIGHT)
    assert wrong == Judgement(WRONG, "[3]", "0", "3")
    assert raising.outcome is WRONG
    assert (raising.argument, raising.got[:10]) == ("[]", "ValueError")
    assert [(each.outcome, each.argument) for each in others] == [(WRONG, ""), (WRONG, "[]"), (WRONG, "")]


def attempt(name: str) -> Attempt:
    return Attempt(name, 0, 0, name, "", "", "", sb.VERDICT_PASSED, False, Row(name, "", "", ""))


TASKS = [Task(name, name, [name], [attempt(f"{name}{number}") for number in range(2)]) for name in "abc"]
TRUTH = {"a0": RIGHT, "a1": WRONG, "b0": WRONG, "b1": RIGHT, "c0": UNKNOWN, "c1": UNKNOWN}
VARIED = {"a0": UNKNOWN, "a1": WRONG, "b0": RIGHT, "b1": RIGHT, "c0": WRONG, "c1": UNKNOWN}


def rows(*numbers: int) -> list[Choice]:
    """Return the choice of an attempt of each task."""
    return [Choice(task, task.attempts[number]) for task, number in zip(TASKS, numbers, strict=False)]


def test_the_table_counts_what_is_known() -> None:
    found = measure("mine", rows(0, 0, 0), TASKS, TRUTH, VARIED)
    assert (found.rows, found.right, found.wrong) == (3, 1, 1)
    assert (found.agreeing, found.differing) == (1, 1)
    assert (found.found, found.findable) == (1, 2)
    head, _, line = table([found]).splitlines()
    assert head.count("|") == line.count("|")
    assert line.startswith("| mine | 3 | 1 of 2: 50.0% (9.5% to 90.5%) |")
    assert measure("mine", [], TASKS, TRUTH, VARIED).line().startswith("| mine | 0 | - | - | - | 0 of 2")


def test_strategies_are_compared_task_by_task() -> None:
    found = compare("mine", rows(0, 1, 0), "first", rows(1, 1), TRUTH)
    assert (found.right, found.wrong) == ((1, 0), (0, 1))
    assert comparison([found]).splitlines()[-1] == "| mine | first | 1 : 0 | 1 | 0 : 1 | 1 |"


def test_another_order_is_measured_by_its_name(whole: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    def last(task: Task, run: pb.Run) -> list[Attempt]:
        return [each for each in reversed(task.attempts) if each.verdict == sb.VERDICT_PASSED]

    monkeypatch.setitem(choosing.ORDERS, "last-pass", last)
    tasks, rules = whole.tasks(), whole.pipeline.selection.duplicate_rules
    chosen = choose("last-pass", tasks, whole.run.run, rules)
    assert chosen
    assert len({each.task.record_id for each in chosen}) == len(chosen)
    everything: dict[str, Checks | None] = {each.record_id: None for task in tasks for each in task.attempts}
    unknown = judge(tasks, everything, Executions(Path("/dev/null"), results))
    assert set(unknown.values()) == {Judgement(UNKNOWN)}
    assert "| last-pass | first-pass |" in report(whole, tasks, unknown, unknown)
