"""Choice of the sandbox profile in which solutions are executed."""

from __future__ import annotations

import ast
import asyncio

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import InvalidArgument
from codealign.coordinator.evaluation import judging
from codealign.coordinator.evaluation.judging import Judge
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import CallTests, CheckTests, Part, Problem
from codealign.coordinator.ground import calls
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.windows import of_sandbox
from fakes import FakeSandbox


class Sandbox(FakeSandbox):
    """Sandbox that passes every program, except for a configurable verdict on one that imports numpy."""

    def __init__(self) -> None:
        super().__init__(self._judge)
        self.says: sb.Verdict.ValueType | None = None
        """Verdict on the program that imports numpy, or None if the profile does not exist."""

    def _judge(self, program: sb.Program) -> sb.Result:
        verdict = self.says if program.code == "import numpy\n" else sb.VERDICT_PASSED
        if verdict is None:
            raise InvalidArgument("profile", "unknown profile 'numpy'; the runners have 'default'")
        return sb.Result(verdict=verdict)


@pytest.fixture
def sandbox() -> tuple[Sandbox, Judge]:
    fake = Sandbox()
    return fake, Judge(fake, of_sandbox(fake), StageTally(), lambda: None, KnownResults())


CHECK = Problem("humaneval", "HumanEval/0", "", "f", "", CheckTests("def check(f):\n    assert f() == 1\n"))


@pytest.mark.parametrize(
    ("says", "profile"),
    [
        (sb.VERDICT_COMPLETED, "numpy"),
        # The gateway knows the profile, and its runners do not have the package.
        (sb.VERDICT_RAISED, ""),
        (sb.VERDICT_CRASHED, ""),
        (None, ""),
    ],
)
async def test_solutions_may_import_numpy_where_the_sandbox_has_it(
    sandbox: tuple[Sandbox, Judge], says: sb.Verdict.ValueType | None, profile: str
) -> None:
    fake, judge = sandbox
    fake.says = says
    solutions = [f"def f(): return {number}" for number in range(4)]
    results = await asyncio.gather(*(judge.judge(CHECK, solution) for solution in solutions))
    assert [result and result.verdict for result in results] == [sb.VERDICT_PASSED] * 4
    first, *others = fake.requests
    assert first.program.code == "import numpy\n", "it is asked once, before any solution"
    assert first.profile == "numpy"
    assert sorted(other.program.code for other in others) == solutions
    assert {other.profile for other in others} == {profile}


async def test_while_the_infrastructure_fails_nothing_is_decided(
    sandbox: tuple[Sandbox, Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_PAUSE_SECONDS", 0.0)
    fake, judge = sandbox
    fake.says = sb.VERDICT_INFRASTRUCTURE
    assert await judge.judge(CHECK, "def f(): return 1") is None
    fake.says = sb.VERDICT_COMPLETED
    result = await judge.judge(CHECK, "def f(): return 1")
    assert result is not None
    assert fake.requests[-1].profile == "numpy"


async def test_a_machine_that_is_slow_at_first_takes_numpy_from_no_solution(sandbox: tuple[Sandbox, Judge]) -> None:
    fake, judge = sandbox
    for says in (sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY):
        fake.says = says
        assert await judge.judge(CHECK, "def f(): return 1") is None
    fake.says = sb.VERDICT_COMPLETED
    assert await judge.judge(CHECK, "def f(): return 1") is not None
    assert fake.requests[-1].profile == "numpy"


async def test_our_own_part_of_a_program_does_not_name_numpy(sandbox: tuple[Sandbox, Judge]) -> None:
    fake, judge = sandbox
    fake.says = sb.VERDICT_COMPLETED
    tests = CallTests((Part("base", ([1],)),), "def f(x): return x\n")
    problem = Problem("humaneval+", "HumanEval/0", "", "f", "def f(x): return x\n", tests)
    with pytest.raises(RunFailed):  # this sandbox writes no outputs
        await judge.judge(problem, "def f(x): return x\n")
    sent = fake.requests[-1]
    assert (sent.profile, sent.program.code) == ("numpy", tests.reference)
    # Otherwise every solution would run with numpy, which costs time.
    assert "numpy" not in sent.program.tests
    assert ast.literal_eval(judging._CALLS) == judging._source("calls.py")
