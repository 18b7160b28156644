"""Attempts that are odd or hostile, compared with honest ones on real gVisor.

Each comparison has two honest attempts and an odd one. All comparisons run at the same time: what one attempt does to
the sandbox could show in any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import batching, comparing, killing, observing
from codealign.coordinator.agreement.calls import Arguments
from codealign.coordinator.agreement.comparing import Answer, Compared
from codealign.coordinator.agreement.inputs import TESTS, Input
from codealign.coordinator.agreement.killing import Mutated
from codealign.coordinator.agreement.mutants import mutants
from codealign.coordinator.agreement.outcomes import Outcome
from codealign.coordinator.agreement.scoring import AttemptJudgement
from codealign.coordinator.agreement.strength import MutantResult
from codealign.coordinator.agreement.subjects import Subject
from codealign.coordinator.agreement.trials import INPUTS, Trial, passes
from services.sandbox.tests.conftest import Gateway, name_of, running

pytestmark = pytest.mark.gvisor

SLOTS = 4
"""More than processors: some programs only wait."""
_SECONDS = 900.0
TASK = "Write `total(values)` that returns the sum of the positive numbers among the values."
RIGHT = "def total(values):\n    return sum(value for value in values if value > 0)\n"
ALSO_RIGHT = """
def total(values):
    found = 0
    for value in values:
        if value > 0:
            found += value
    return found
"""
HONEST = (
    (RIGHT, "assert total([1, -2, 3]) == 4\nassert total([]) == 0\n"),
    (ALSO_RIGHT, "assert total([5, -5]) == 5\n"),
)
OWN_TESTS = "assert total([2, 3]) == 5\n"
GROUPS = """
def groups(words):
    found = {}
    for word in WORDS:
        found.setdefault(len(word), set()).add(word)
    return found
"""
GROUPS_TESTS = "assert groups(['a', 'bb', 'c']) == {1: {'a', 'c'}, 2: {'bb'}}\n"
FORGER = """
import gc, os, sys

def total(values):
    frame, found = sys._getframe(), set()
    while frame is not None:
        own = frame.f_locals.get("self")
        found.add(getattr(own, "_marker", None))
        found.update(getattr(own, "_asked", {}).get("markers", ()))
        frame = frame.f_back
    for marker in filter(None, found):
        for number in range(64):
            told = '["input", %d, {"kind": "returned", "text": "4711"}]' % number
            os.write(1, f"\\n{marker} {told}\\n{marker} [\\"program\\", \\"failed\\"]\\n".encode())
    return sum(value for value in values if value > 0)
"""


KILLER = """
import os, signal

def total(values):
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(-1, signal.SIGKILL)
    return sum(value for value in values if value > 0)
"""


@dataclass(frozen=True)
class Odd:
    """An odd attempt, and what is expected of it."""

    code: str
    tests: str = OWN_TESTS
    verdicts: frozenset[str] = frozenset({"PASSED"})
    """On its own tests."""
    agrees: bool | None = False
    """Whether it is in the class of the honest ones. None: either."""
    honest: tuple[tuple[str, str], tuple[str, str]] = HONEST


def ends(*names: str) -> frozenset[str]:
    return frozenset(names)


ODD = {
    "another signature": Odd(
        "def total(values, start):\n    return start + sum(values)\n", "assert total([2, 3], 1) == 6\n", agrees=None
    ),
    "another name": Odd("def summed(values):\n    return sum(values)\n", "assert summed([2, 3]) == 5\n", agrees=None),
    "a generator": Odd("def total(values):\n    yield from values\n", "assert list(total([2])) == [2]\n"),
    "an endless generator": Odd(
        "def total(values):\n    while True:\n        yield 1\n", "assert next(total([2])) == 1\n"
    ),
    "an iterator": Odd("def total(values):\n    return iter([sum(values)])\n", "assert next(total([2, 3])) == 5\n"),
    "floats": Odd("def total(values):\n    return sum(0.1 * v for v in values if v > 0) * 10\n", agrees=True),
    "sets and dictionaries in another order": Odd(
        GROUPS.replace("WORDS", "set(words)"),
        GROUPS_TESTS,
        agrees=True,
        honest=(
            (GROUPS.replace("WORDS", "words"), GROUPS_TESTS),
            (GROUPS.replace("WORDS", "sorted(words, reverse=True)"), "assert groups([]) == {}\n"),
        ),
    ),
    "changes its argument": Odd(
        "def total(values):\n    values[:] = [v for v in values if v > 0]\n    return sum(values)\n"
    ),
    "prints": Odd("def total(values):\n    print('x' * 5_000)\n    return sum(v for v in values if v > 0)\n"),
    "reads input": Odd("def total(values):\n    return int(input())\n", verdicts=ends("RAISED")),
    "depends on the time": Odd(
        "import time\n\ndef total(values):\n    return time.perf_counter_ns()\n", "assert total([2]) > 0\n"
    ),
    "depends on randomness": Odd(
        "import random\n\ndef total(values):\n    return random.random()\n", "assert total([2]) < 1\n"
    ),
    # At the limit: time without a processor does not count.
    "sleeps": Odd(
        "import time\n\ndef total(values):\n    time.sleep(10)\n    return sum(values)\n",
        verdicts=ends("TIMED_OUT", "PASSED"),
    ),
    "never ends": Odd("def total(values):\n    while True:\n        pass\n", verdicts=ends("TIMED_OUT")),
    "breaks the interpreter": Odd(
        "import ctypes\n\ndef total(values):\n    ctypes.string_at(0)\n", verdicts=ends("CRASHED")
    ),
    "recurses too deeply": Odd(
        "import sys\n\nsys.setrecursionlimit(10**9)\n\ndef total(values):\n    return total(values)\n",
        verdicts=ends("CRASHED", "OUT_OF_MEMORY", "TIMED_OUT"),
    ),
    "aborts": Odd("import os\n\ndef total(values):\n    os.abort()\n", verdicts=ends("CRASHED")),
    "exits": Odd("import os\n\ndef total(values):\n    os._exit(0)\n", verdicts=ends("EXITED_EARLY")),
    "eats memory": Odd(
        "def total(values):\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 24))\n",
        verdicts=ends("OUT_OF_MEMORY"),
    ),
    "a fork bomb": Odd(
        "import os\n\ndef total(values):\n    while True:\n        os.fork()\n",
        verdicts=ends("PROCESS_LIMIT", "OUT_OF_MEMORY"),
    ),
    "forges the markers": Odd(FORGER, agrees=None),
    "kills its parent": Odd(KILLER, verdicts=ends("PASSED", "RAISED", "CRASHED"), agrees=None),
}


@dataclass
class Sandbox:
    """Executes trials over streams, and remembers the verdicts."""

    gateway: Gateway
    verdicts: list[str] = field(default_factory=list)

    async def execute(self, trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
        """Execute trials at the same time."""
        return await asyncio.to_thread(self._execute, trials)

    def _execute(self, trials: Sequence[Trial]) -> list[sb.Result | None]:
        asked = [
            sb.ExecuteStreamRequest(
                request=sb.ExecuteRequest(program=each.program, limits=each.limits, request_id=str(number))
            )
            for number, each in enumerate(trials)
        ]
        answers = self.gateway.stub.ExecuteStream(iter(asked), timeout=_SECONDS)
        found = {int(answer.result.request_id): answer.result for answer in answers}
        self.verdicts += map(name_of, found.values())
        return [found[number] for number in range(len(trials))]

    async def compared(self, attempts: Sequence[tuple[str, str]]) -> tuple[list[sb.Result], Compared]:
        """Compare attempts, and return the results of their own tests too."""
        programs = [sb.Program(language=sb.LANGUAGE_PYTHON, code=code, tests=tests) for code, tests in attempts]
        own = await self.execute([Trial(TESTS, 0, 0, program, sb.Limits()) for program in programs])
        results = [each for each in own if each is not None]
        answers = [
            Answer(code, tests, passes(result), passes(result) is True)
            for (code, tests), result in zip(attempts, results, strict=True)
        ]
        found = await comparing.compare(TASK, answers, self.execute)
        assert found is not None
        return results, found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway"), slots=str(SLOTS)) as started:
        started.wait_ready()
        yield started


@pytest.fixture(scope="module")
def sandbox(gateway: Gateway) -> Sandbox:
    return Sandbox(gateway)


@pytest.fixture(scope="module")
def comparisons(sandbox: Sandbox) -> dict[str, tuple[list[sb.Result], Compared]]:
    """What each comparison found, and that of the honest attempts alone under ""."""

    async def all_of_them() -> dict[str, tuple[list[sb.Result], Compared]]:
        attempts = {"": HONEST, **{name: (*odd.honest, (odd.code, odd.tests)) for name, odd in ODD.items()}}
        found = await asyncio.gather(*map(sandbox.compared, attempts.values()))
        return dict(zip(attempts, found, strict=True))

    return asyncio.run(all_of_them())


def fates(found: Compared) -> dict[str, bool | None]:
    return {result.description: result.killed for _, result in found.mutants}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_attempt_is_judged_and_leaves_the_honest_ones_alone(
    name: str, comparisons: dict[str, tuple[list[sb.Result], Compared]]
) -> None:
    odd = ODD[name]
    results, found = comparisons[name]
    assert [name_of(each) for each in results[:2]] == ["PASSED", "PASSED"]
    assert name_of(results[2]) in odd.verdicts
    judgement = found.judgement
    winner = judgement.classes[0]
    assert not judgement.contested
    assert set(winner) >= {0, 1}
    if odd.agrees is not None:
        assert (2 in winner) is odd.agrees
    honest = judgement.attempts[:2]
    assert [each.has_vote for each in honest] == [True, True]
    assert not any(set(each.contradicted_by) & {0, 1} for each in honest)
    assert found.best in winner
    assert all(outcome.counts for outcome in found.outcomes)
    own: AttemptJudgement = judgement.attempts[2]
    if 2 not in winner:
        assert own.sentence
        assert own.class_size == 0 or (2,) in judgement.classes
    if found.best == 0 and odd.honest is HONEST:
        assert fates(found) == fates(comparisons[""][1])


@pytest.mark.usefixtures("comparisons")
def test_no_fault_of_the_infrastructure_is_among_the_verdicts(sandbox: Sandbox) -> None:
    assert len(sandbox.verdicts) > 5 * len(ODD)
    assert "INFRASTRUCTURE" not in sandbox.verdicts


F = Subject("f", "", ())
SUMS = "def f(x):\n    found = 0\n    while x > 0:\n        found += x\n        x -= 1\n    return found\n"
RECIPES = {
    "loops that may not end": (SUMS, "assert f(1) == 1\n"),
    "state and modules": (
        "import functools\n\n@functools.cache\ndef f(x):\n    return 1 if x < 2 else f(x - 1) + f(x - 2)\n",
        "def test_f():\n    assert f(3) == 3\n\ntest_f()\n",
    ),
    "numpy": ("import numpy as np\n\ndef f(x):\n    return int(np.arange(x + 2).sum())\n", "assert f(2) == 6\n"),
    "tests that catch": (
        "def f(x):\n    if x < 0:\n        raise ValueError(x)\n    return x // 2\n",
        "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass\nassert f(4) == 2\n",
    ),
}
TRIED = [Input(Arguments((text,)), TESTS) for text in ("0", "1", "2", "7", "-3")]


@pytest.mark.parametrize("name", RECIPES)
def test_mutants_have_the_same_fates_together_as_alone(name: str, sandbox: Sandbox) -> None:
    code, tests = RECIPES[name]

    def read(trial: Trial, result: sb.Result | None) -> tuple[Outcome, ...]:
        assert result is not None
        return observing.read(result.stdout.data, trial.program.code, len(TRIED)).outcomes

    def observe(text: str) -> Trial:
        return Trial(INPUTS, 0, 0, observing.program(text, F, TRIED, text), observing.LIMITS)

    async def tried(*, together: bool) -> tuple[list[MutantResult], int]:
        before = len(sandbox.verdicts)
        answer = Mutated(0, code, tests, F, TRIED, observe, read)
        found = await killing.tried(answer, mutants(code, 8), sandbox.execute, together=together)
        return [each for _, each in found], len(sandbox.verdicts) - before

    alone, executions = asyncio.run(tried(together=False))
    common, fewer = asyncio.run(tried(together=True))
    assert common == alone
    assert all(each.killed is not None for each in common)
    assert fewer < executions


FEW = "assert f(2) == 3\n"
GOOD, BAD = SUMS.replace("x > 0", "x >= 1"), SUMS.replace("found = 0", "found = 1")
KEY = "a key"
HOSTILE = {
    # On a machine that is busy the answer may be slow too.
    "endless": ("while True:\n    pass\n", (True, None)),
    "stubborn": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass\n", (True, None)),
    "crash": ("import ctypes\nctypes.string_at(0)\n", (True,)),
    "abort": ("import os\nos.abort()\n", (True,)),
    "exit": ("import os\nos._exit(0)\n", (True,)),
    # Its time may be up before the memory is.
    "memory": ("kept = []\nwhile True: kept.append(bytearray(1 << 24))\n", (True, None)),
    "output": ("while True: print('x' * 10_000)\n", (None,)),
    "forged": (
        "import sys, os\nframe = sys._getframe()\nwhile 'self' not in frame.f_locals: frame = frame.f_back\n"
        "for marker in frame.f_locals['self']._asked['markers'][:2]:\n"
        '    os.write(1, f\'\\n{marker} ["program", "failed"]\\n\'.encode())\n' + SUMS,
        (False,),
    ),
}
"""Codes in the place of mutants, which affect no other, and whether tests may detect them."""
ENDING = {
    "parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)\n", True),
    "bomb": ("import os\nwhile True: os.fork()\n", True),
    "orphan": ("import os, time\nif not os.fork():\n    os.setsid()\n    time.sleep(60)\n" + SUMS, False),
}
"""Codes that may end the program, and their fates alone."""


def together(sandbox: Sandbox, codes: Sequence[str]) -> batching.Batch:
    program = batching.program(SUMS, FEW, codes, KEY, F, TRIED)
    assert program is not None
    (result,) = asyncio.run(sandbox.execute([Trial("mutants", 0, 0, program, batching.LIMITS)]))
    assert result is not None
    return batching.read(result.stdout.data, KEY, len(codes), len(TRIED), proves=True)


def test_no_mutant_affects_another_in_the_sandbox(sandbox: Sandbox) -> None:
    batch = together(sandbox, [GOOD, *(each for code, _ in HOSTILE.values() for each in (code, GOOD, BAD))])
    assert batch.ended
    good, *rest = batch.fates
    assert good is not None
    assert good.killed is False
    assert good.outcomes is not None
    assert [str(each) for each in good.outcomes] == [f"returns {total}" for total in (0, 1, 3, 28, 0)]
    found = {name: fate and fate.killed for name, fate in zip(HOSTILE, rest[::3], strict=True)}
    assert {name: killed for name, killed in found.items() if killed not in HOSTILE[name][1]} == {}
    assert rest[1::3] == [good] * len(HOSTILE)
    assert rest[2::3] == [batching.Fate(True)] * len(HOSTILE)


@pytest.mark.parametrize("name", ENDING)
def test_a_mutant_that_ends_the_program_falsifies_nothing(name: str, sandbox: Sandbox) -> None:
    code, alone = ENDING[name]
    first, ending, *others = together(sandbox, [GOOD, code, BAD, GOOD]).fates
    assert (first and first.killed) in (None, False)  # its end may not have been told before
    assert (ending and ending.killed) in (None, alone)
    assert [each and each.killed for each in others] in ([None, None], [True, None], [True, False])
