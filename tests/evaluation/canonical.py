"""Canonical solutions of HumanEval+ and MBPP+ pass in the sandbox, and fail without their bodies.

    CODEALIGN_BENCHMARK_DATA=<folder with EvalPlus' files> .venv/bin/python -m tests.evaluation.canonical

The tests are the plainest there are: an assertion for each base and plus input that the function returns what it
returned in an ordinary interpreter of this machine. (How EvalPlus judges is another matter: `test_parity.py`.) Each
problem is sent as it is, with the body `return None`, and with the body `pass`; all of that with 1, 8 and 64 callers at
once. Ends with 1 where a solution did not pass, a body of nothing did, an execution timed out or failed for reasons of
our own, or something is left on the machine.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import marshal
import os
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.coordinator.evaluation import benchmarks
from codealign.coordinator.evaluation.problems import CallTests, Problem
from services.sandbox.tests.conftest import Gateway, name_of
from tests import gateways
from tests.bench.rows.workers import BASE
from tests.chaos.load import Item, Load

NAMES = ("humaneval+", "mbpp+")
CALLERS = (1, 8, 64)
BODIES = {"canonical": None, "return None": ast.Return(ast.Constant(None)), "pass": ast.Pass()}
MIB = 2**20
_REFERENCE_SECONDS = 120.0
_TOO_SLOW = 30.0
"""CPU seconds of the reference on this machine: on a busy machine the sandbox may need its maximum of 60."""
_QUICK = 1.0
"""CPU seconds up to which the default limits suffice."""
_LARGE = 4 * MIB
"""Bytes of arguments and values up to which the default limits suffice."""
_MESSAGE = 60 * MIB
"""Maximum message size of a gateway: 64 MiB."""
_MOST = pb.Limits(wall_seconds=60, cpu_seconds=60, memory_bytes=2048 * MIB, disk_bytes=512 * MIB)
_FILE = "calls"
_TESTS = """\
import marshal as _marshal, zlib as _zlib
with open({file!r}, "rb") as _file:
    _calls = _marshal.loads(_zlib.decompress(_file.read()))
for _arguments, _expected in _calls:
    assert {call} == _expected
"""
_CALLS = {"set": "set({0}(*_arguments))", "not-none": "({0}(*_arguments) is not None)"}
"""As in `reference.JUDGED`."""
_DECODER = (files("codealign.coordinator.evaluation.in_sandbox") / "calls.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Plain:
    """A problem with its plain tests."""

    problem: Problem
    data: bytes
    """Marshalled and compressed arguments and expected value of each call; some are hundreds of megabytes."""
    size: int
    """Uncompressed bytes."""
    seconds: float
    """CPU seconds of the reference on this machine."""
    tells: bool
    """Whether a value other than None is expected: otherwise a function without a body is right."""

    @property
    def is_large(self) -> bool:
        """Whether the default limits may not suffice."""
        return self.seconds > _QUICK or self.size > _LARGE

    def item(self, body: str) -> Item:
        """Return an execution with this body."""
        tests = self.problem.tests
        assert isinstance(tests, CallTests)
        call = _CALLS.get(tests.rule, "{0}(*_arguments)").format(self.problem.entry_point)
        program = pb.Program(code=_with_body(self.problem, body), tests=_TESTS.format(file=_FILE, call=call))
        program.files.add(path=_FILE, content=self.data)
        request = pb.ExecuteRequest(program=program, request_id=f"{self.problem.problem_id} {body}")
        if self.is_large:
            request.limits.CopyFrom(_MOST)
        passes = body == "canonical" or not self.tells
        return Item(request, ("PASSED",) if passes else ("FAILED_ASSERTION", "RAISED"))


def _with_body(problem: Problem, body: str) -> str:
    statement = BODIES[body]
    if statement is None:
        return problem.canonical_solution
    tree = ast.parse(problem.canonical_solution)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point:
            node.body = [statement]
    return ast.unparse(ast.fix_missing_locations(tree))


def prepare(problem: Problem) -> Plain | str:
    """Return a problem with its expected values, or the reason for skipping it."""
    tests = problem.tests
    assert isinstance(tests, CallTests)
    asked = (tests.reference, problem.entry_point, tests.inputs, tests.rule, _DECODER)
    command = [BASE, "-S", "-s", "-P", str(Path(__file__).with_name("reference.py"))]
    # The order of a set differs between processes.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            command,
            input=marshal.dumps(asked),
            capture_output=True,
            timeout=_REFERENCE_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its reference takes more than {_REFERENCE_SECONDS:g} s here"
    if done.returncode:
        return f"its reference fails here: {done.stderr.decode(errors='replace').strip()[-200:]}"
    values, arguments, seconds, fault = marshal.loads(done.stdout)
    if fault or seconds > _TOO_SLOW:
        return str(fault or f"its reference takes {seconds:.0f} s here")
    data = marshal.dumps(list(zip(arguments, values, strict=True)))
    packed = zlib.compress(data, 1)
    if len(packed) > _MESSAGE:
        return f"its expected values are {len(packed) / MIB:.0f} MiB"
    return Plain(problem, packed, len(data), seconds, any(value is not None for value in values))


def prepared(folder: Path, every: int) -> tuple[list[Plain], dict[str, str]]:
    """Return the problems to send, and the reasons for skipping the others.

    Args:
        folder: With EvalPlus' files.
        every: Of each benchmark every so manieth problem.
    """
    problems = [problem for name in NAMES for problem in benchmarks.load(name, folder).problems[::every]]
    found: list[Plain] = []
    left_out: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for number, (problem, result) in enumerate(zip(problems, pool.map(prepare, problems), strict=True), 1):
            if isinstance(result, str):
                left_out[problem.problem_id] = result
                print(f"left out: {problem.problem_id}: {result}", flush=True)
            else:
                found.append(result)
            if number % 100 == 0 or number == len(problems):
                print(f"expected values of {number} of {len(problems)} problems", flush=True)
    return found, left_out


@dataclass
class Outcome:
    """Results of all problems with a number of callers."""

    callers: int
    seconds: float = 0.0
    verdicts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """Verdicts by benchmark and body."""
    wrong: list[str] = field(default_factory=list)


def send(gateway: Gateway, problems: Sequence[Plain], callers: int) -> Outcome:
    """Send everything once.

    Args:
        gateway: Is ready.
        problems: With their tests.
        callers: At once.
    """
    outcome = Outcome(callers)
    benchmark = {each.problem.problem_id: each.problem.benchmark for each in problems}
    total = len(problems) * len(BODIES)
    done = 0

    def items() -> Iterable[Item]:
        return (each.item(body) for each in problems for body in BODIES)

    def take(item: Item, result: pb.Result) -> None:
        nonlocal done
        done += 1
        problem_id, _, body = item.request.request_id.partition(" ")
        counted = outcome.verdicts.setdefault((benchmark[problem_id], body), Counter())
        counted[name_of(result)] += 1
        fault = item.fault(result)
        if fault:
            outcome.wrong.append(fault)
            print(f"WRONG: {fault}", flush=True)
        if done % 200 == 0 or done == total:
            print(f"{callers} callers: {done} of {total}, wrong {len(outcome.wrong)}", flush=True)

    begun = time.monotonic()
    load = Load(gateway, items(), callers, take)
    try:
        while load.wait(60):
            pass
    finally:
        load.stop()
    outcome.seconds = time.monotonic() - begun
    return outcome


def report(outcomes: Sequence[Outcome], problems: Sequence[Plain], left_out: dict[str, str]) -> None:
    """Print a table in Markdown."""
    print("\n| callers | benchmark | body | sent | PASSED | FAILED_ASSERTION | TIMED_OUT | INFRASTRUCTURE | others |")
    print("|---:|---|---|---:|---:|---:|---:|---:|---:|")
    for outcome in outcomes:
        for (name, body), counted in sorted(outcome.verdicts.items()):
            named = [counted[verdict] for verdict in ("PASSED", "FAILED_ASSERTION", "TIMED_OUT", "INFRASTRUCTURE")]
            cells = [outcome.callers, name, f"`{body}`", counted.total(), *named, counted.total() - sum(named)]
            print(f"| {' | '.join(map(str, cells))} |")
    silent = [each.problem.problem_id for each in problems if not each.tells]
    print(f"\n{len(problems)} problems, {len(left_out)} left out: {', '.join(left_out) or 'none'}")
    print(f"right without a body, since None is all that is expected: {', '.join(silent) or 'none'}")
    print(f"larger limits for: {sum(each.is_large for each in problems)}")
    for outcome in outcomes:
        each = sum(counted.total() for counted in outcome.verdicts.values()) / outcome.seconds
        print(f"{outcome.callers} callers: {outcome.seconds:.0f} s, {each:.1f} per second, wrong {len(outcome.wrong)}")


def main() -> int:
    """Run the test and return whether everything was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so manieth problem")
    parser.add_argument("--callers", type=int, nargs="+", default=list(CALLERS))
    parser.add_argument("--runners", type=int, default=2)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--runsc", type=Path, help="another runsc than the one that a gateway finds")
    given = parser.parse_args()
    folder = os.environ.get("CODEALIGN_BENCHMARK_DATA")
    if not folder:
        parser.error("set CODEALIGN_BENCHMARK_DATA to a folder with EvalPlus' files")
    gateways.end_by_signals()
    problems, left_out = prepared(Path(folder), given.every)
    with gateways.own_cache(given.runsc) as cache:
        with gateways.started(cache, given.runners, given.slots) as gateway:
            outcomes = [send(gateway, problems, callers) for callers in given.callers]
        left = gateways.left_over(cache)
    report(outcomes, problems, left_out)
    for line in left:
        print(f"LEFT: {line}")
    return 1 if left or any(outcome.wrong for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
