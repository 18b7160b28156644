"""How many wrong programs pass weak tests, and how many of them a judge finds: HumanEval+ and MBPP+.

    CODEALIGN_BENCHMARK_DATA=<folder with EvalPlus' files> .venv/bin/python -m tests.bench.weak_tests [--every 4]

The attempts at a problem are its canonical solution and mutants of it: programs with one small fault. EvalPlus' tests
decide which of them are right; some mutants are. The weak tests are the first base input with its expected output. A
judge sees the problem's prompt, the weak tests and the attempts, and says which it keeps, and with which further tests:
`JUDGES`. Results are kept in --folder, so that a repetition costs nothing.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.clients import Addresses, Clients
from codealign.coordinator.agreement.comparing import Answer
from codealign.coordinator.evaluation import benchmarks
from codealign.coordinator.evaluation.in_sandbox.calls import decoded
from codealign.coordinator.evaluation.judging import Judge as Reference
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import CallTests, Problem
from codealign.coordinator.ground.remote import remote
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.windows import of_sandbox
from tests import gateways
from tests.bench.agreeing import Run, compared
from tests.bench.choosing import share
from tests.bench.judged import Executions, Sandbox
from tests.evaluation.test_parity import HEAVY
from tests.mutation import mutants

NAMES = ("humaneval+", "mbpp+")
_AT_ONCE = 4


@dataclass(frozen=True)
class Asked:
    """What a judge sees of a problem."""

    prompt: str
    tests: str
    """The weak tests."""
    attempts: Sequence[str]
    """Programs."""


@dataclass(frozen=True)
class Kept:
    """An attempt that a judge keeps."""

    number: int
    """Its index."""
    tests: str = ""
    """Tests that the judge adds."""


Judge = Callable[[Asked, Run], Sequence[Kept]]


def passing(asked: Asked, run: Run) -> list[Kept]:
    """Keep what passes the weak tests."""
    results = run([sb.Program(code=code, tests=asked.tests) for code in asked.attempts])
    return [Kept(number) for number, result in enumerate(results) if result.verdict == sb.VERDICT_PASSED]


def agreeing(asked: Asked, run: Run) -> list[Kept]:
    """Keep the passes that most attempts agree with; the best one with stronger tests."""
    passed = {each.number for each in passing(asked, run)}
    answers = [
        Answer(code, asked.tests, number in passed, number in passed) for number, code in enumerate(asked.attempts)
    ]
    found = compared(asked.prompt, answers, run)
    if found is None or found.best is None or found.judgement.contested:
        return []
    members = passed.intersection(found.judgement.classes[0])
    return [Kept(number, found.tests if number == found.best else "") for number in sorted(members)]


JUDGES: dict[str, Judge] = {"passes the weak tests": passing, "agreement": agreeing}
"""The measured judges by name."""


@dataclass(frozen=True)
class Case:
    """A problem with its attempts."""

    asked: Asked
    are_right: Sequence[bool]
    """Of each attempt. The first is the canonical solution."""


def weak_tests(problem: Problem) -> str | None:
    """Return an assertion about the first base input, or None if it cannot be written with literals.

    Executes the canonical solution in this process: it is the benchmark's own.
    """
    tests = problem.tests
    assert isinstance(tests, CallTests)
    if tests.rule != "equal":
        return None
    arguments = [decoded(argument) for argument in tests.parts[0].inputs[0]]
    call = f"{problem.entry_point}({', '.join(map(repr, arguments))})"
    space: dict[str, object] = {"__name__": "canonical"}
    exec(compile(problem.canonical_solution, problem.problem_id, "exec"), space)
    function = space[problem.entry_point]
    assert callable(function)
    expected = function(*arguments)
    try:
        if ast.literal_eval(repr(expected)) != expected:
            return None
        ast.literal_eval(repr(arguments))
    except (ValueError, SyntaxError):
        return None
    return f"assert {call} == {expected!r}\n"


def variants(problem: Problem, count: int) -> list[str]:
    """Return the canonical solution, and distinct mutants of it, spread over all of them."""
    found = list(dict.fromkeys(mutants(problem.canonical_solution)))
    step = max(1, len(found) / count) if count else 1
    chosen = [found[int(number * step)] for number in range(min(count, len(found)))]
    return [problem.canonical_solution, *chosen]


def case_of(problem: Problem, tests: str, right: Mapping[str, bool], attempts: Sequence[str], most: int) -> Case | None:
    """Return a problem's case, or None if no attempt is wrong.

    Args:
        problem: The problem.
        tests: Its weak tests.
        right: Whether attempts are right, by `solution_key`. Those that are not there are left out.
        attempts: The canonical solution and its mutants.
        most: Wrong attempts at most, and right mutants at most.
    """
    known = [(code, right[key]) for code in attempts if (key := solution_key(problem, code)) in right]
    parts = [[code for code, is_right in known[1:] if is_right == wanted][:most] for wanted in (True, False)]
    if not known or not known[0][1] or not parts[1]:
        return None
    codes = [known[0][0], *parts[0], *parts[1]]
    return Case(Asked(problem.prompt, tests, codes), [True] * (1 + len(parts[0])) + [False] * len(parts[1]))


@dataclass(frozen=True)
class Measured:
    """What a judge did."""

    name: str
    problems: int
    wrong: int
    right: int
    wrong_passing: int
    """Wrong attempts that pass the weak tests."""
    found: int
    """Those of them that the judge does not keep."""
    right_passing: int
    alarms: int
    """Right attempts that pass the weak tests and that the judge does not keep."""
    added: int
    """Attempts that are kept with further tests."""
    false_tests: int
    """Those of them whose further tests the canonical solution fails."""

    def line(self) -> str:
        """Return a line of the table."""
        parts = ((self.wrong_passing, self.wrong), (self.found, self.wrong_passing), (self.alarms, self.right_passing))
        shown = " | ".join(share(*each) for each in (*parts, (self.false_tests, self.added)))
        return f"| {self.name} | {self.problems} | {shown} |"


def measure(name: str, judge: Judge, cases: Sequence[Case], run: Run) -> Measured:
    """Ask a judge about all cases, and count."""
    wrong_passing = found = right_passing = alarms = added = false_tests = 0
    for case in cases:
        passed = {each.number for each in passing(case.asked, run)}
        kept = judge(case.asked, run)
        numbers = {each.number for each in kept}
        right = {number for number, is_right in enumerate(case.are_right) if is_right}
        wrong_passing += len(passed - right)
        found += len(passed - right - numbers)
        right_passing += len(passed & right)
        alarms += len(passed & right - numbers)
        tests = [each.tests for each in kept if each.tests]
        added += len(tests)
        results = run([sb.Program(code=case.asked.attempts[0], tests=each) for each in tests])
        false_tests += sum(result.verdict != sb.VERDICT_PASSED for result in results)
    right_ones = sum(sum(case.are_right) for case in cases)
    wrong_ones = sum(len(case.are_right) for case in cases) - right_ones
    return Measured(
        name, len(cases), wrong_ones, right_ones, wrong_passing, found, right_passing, alarms, added, false_tests
    )


def table(measured: Sequence[Measured]) -> str:
    """Return the table in Markdown; shares have 95% intervals (Wilson)."""
    head = "| judge | problems | wrong ones that pass | of these found | false alarms | false added tests |"
    return "\n".join([head, "|---|" + "---:|" * 5, *(each.line() for each in measured)])


def solution_key(problem: Problem, code: str) -> str:
    """Return what identifies a solution of a problem."""
    return sha256(f"{problem.tests_sha256}\0{code}".encode()).hexdigest()


def judged(solutions: Sequence[tuple[Problem, str]], kept: Path, sandbox: Sandbox) -> dict[str, bool]:
    """Return whether solutions pass EvalPlus' tests, by `solution_key`; new ones are appended to a file."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    right: dict[str, bool] = dict(json.loads(line) for line in lines)
    missing = {key: each for each in solutions if (key := solution_key(*each)) not in right}
    with kept.open("a", encoding="utf-8") as file:

        def take(key: str, *, is_right: bool) -> None:
            right[key] = is_right
            file.write(f"{json.dumps([key, is_right])}\n")
            file.flush()

        if missing:
            asyncio.run(_judge(missing, sandbox, take))
    return right


async def _judge(solutions: Mapping[str, tuple[Problem, str]], sandbox: Sandbox, take: Callable[..., None]) -> None:
    async with Clients(Addresses(sandbox=f"127.0.0.1:{sandbox.gateway.port()}")) as clients:
        gateway, free = remote(clients).sandbox, asyncio.Semaphore(_AT_ONCE)
        reference = Reference(gateway, of_sandbox(gateway, _AT_ONCE), StageTally(), lambda: None, KnownResults())

        async def judge(key: str, problem: Problem, code: str) -> None:
            async with free:
                result = await reference.judge(problem, code)
            if result is not None:
                take(key, is_right=result.verdict == sb.VERDICT_PASSED)

        await asyncio.gather(*(judge(key, *each) for key, each in solutions.items()))


def problems_of(folder: Path, every: int) -> Iterator[tuple[Problem, str]]:
    """Yield every so manieth problem of both benchmarks with its weak tests, except for those with slow references."""
    for name in NAMES:
        for problem in benchmarks.load(name, folder).problems[::every]:
            if problem.problem_id not in HEAVY and (tests := weak_tests(problem)) is not None:
                yield problem, tests


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=4, help="use every so manieth problem")
    parser.add_argument("--mutants", type=int, default=10, help="mutants of a problem that are judged")
    parser.add_argument("--most", type=int, default=5, help="wrong attempts at a problem at most")
    parser.add_argument("--folder", type=Path, default=Path(".codealign/weak-tests"), help="where results are kept")
    given = parser.parse_args()
    data = os.environ.get("CODEALIGN_BENCHMARK_DATA")
    if not data:
        parser.error("set CODEALIGN_BENCHMARK_DATA to a folder with EvalPlus' files")
    gateways.end_by_signals()
    given.folder.mkdir(parents=True, exist_ok=True)
    problems = list(problems_of(Path(data), given.every))
    written = {problem.problem_id: variants(problem, given.mutants) for problem, _ in problems}
    with contextlib.ExitStack() as stack:
        sandbox = Sandbox(stack)
        solutions = [(problem, code) for problem, _ in problems for code in written[problem.problem_id]]
        right = judged(solutions, given.folder / "right.jsonl", sandbox)
        run = Executions(given.folder / "judged.jsonl", sandbox.execute).of
        found = (case_of(problem, tests, right, written[problem.problem_id], given.most) for problem, tests in problems)
        cases = [each for each in found if each is not None]
        print(table([measure(name, judge, cases, run) for name, judge in JUDGES.items()]))


if __name__ == "__main__":
    main()
