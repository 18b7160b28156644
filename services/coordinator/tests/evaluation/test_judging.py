"""Programs that the judge sends to the sandbox."""

from __future__ import annotations

import json

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.evaluation import judging
from codealign.coordinator.evaluation.in_sandbox import calls
from codealign.coordinator.evaluation.judging import Judge
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import CallTests, Part, Problem
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.windows import of_sandbox
from codealign.runner.profiles import DEFAULT, LIGHT
from fakes import FakeSandbox


def writing(program: sb.Program) -> sb.Result:
    """Answer a program that calls a function as if each output were the function's whole text."""
    outputs = json.dumps([[json.dumps(program.code), "", "str", False]]).encode()
    line = calls.MARKER + calls.SEPARATOR.join((outputs, b"[0.1]")) + b"\n"
    return sb.Result(verdict=sb.VERDICT_PASSED, stderr=sb.Output(data=line))


@pytest.mark.parametrize(
    ("rule", "solution", "compared"),
    [
        ("equal", "def f(x): return x\n", False),
        ("equal", "def f(x): pass\n", True),
        ("not-none", "def f(x): return x\n", True),
    ],
)
async def test_only_outputs_that_are_not_the_references_are_compared(rule: str, solution: str, compared: bool) -> None:
    fake = FakeSandbox(writing)
    judge = Judge(fake, of_sandbox(fake), StageTally(), lambda: None, KnownResults())
    problem = Problem("b", "b/0", "", "f", "", CallTests((Part("base", ([1],)),), "def f(x): return x\n", rule=rule))
    result = await judge.judge(problem, solution)
    assert result is not None
    assert (result.verdict, result.stderr.data) == (sb.VERDICT_PASSED, b"")
    assert [request.program.code for request in fake.requests].count(judging._AGREEMENT) == compared


async def test_a_slow_reference_with_few_inputs_is_spread_over_as_many_executions() -> None:
    def slow(program: sb.Program) -> sb.Result:
        asked = json.loads(program.files[0].content)["inputs"]
        if len(asked) != 1:
            return sb.Result(verdict=sb.VERDICT_TIMED_OUT if asked else sb.VERDICT_NO_TESTS)
        line = calls.MARKER + calls.SEPARATOR.join((json.dumps([["1", "", "int", False]]).encode(), b"[0.1]")) + b"\n"
        return sb.Result(verdict=sb.VERDICT_PASSED, stderr=sb.Output(data=line))

    fake = FakeSandbox(slow)
    judge = Judge(fake, of_sandbox(fake), StageTally(), lambda: None, KnownResults())
    tests = CallTests((Part("base", ([1], [2], [3])),), "def f(x): return 1\n")
    result = await judge.judge(Problem("b", "b/0", "", "f", "", tests), "def f(x): return 1 \n")
    assert result is not None
    assert result.verdict == sb.VERDICT_PASSED
    assert len(fake.requests) == 1 + 3 + 3


async def test_a_reference_that_is_too_slow_is_not_tried_for_every_sample() -> None:
    fake = FakeSandbox(lambda program: sb.Result(verdict=sb.VERDICT_TIMED_OUT))
    judge = Judge(fake, of_sandbox(fake), StageTally(), lambda: None, KnownResults())
    problem = Problem("b", "b/0", "", "f", "", CallTests((Part("base", ([1], [2])),), "def f(x): return 1\n"))
    for sample in range(3):
        assert await judge.judge(problem, f"def f(x): return {sample}\n") is None
    assert len(fake.requests) == 2, "once in one execution, once spread over several"


async def test_our_own_part_of_a_program_asks_for_no_module() -> None:
    fake = FakeSandbox(lambda program: sb.Result(verdict=sb.VERDICT_PASSED))
    judge = Judge(fake, of_sandbox(fake), StageTally(), lambda: None, KnownResults())
    tests = CallTests((Part("base", ([1],)),), "def f(x): return x\n")
    problem = Problem("humaneval+", "HumanEval/0", "", "f", "def f(x): return x\n", tests)
    with pytest.raises(RunFailed):  # this sandbox writes no outputs
        await judge.judge(problem, "def f(x): return x\n")
    (sent,) = fake.requests
    assert sent.program.code == tests.reference
    for text in (sent.program.tests, judging._AGREEMENT + judging._AGREEMENT_TESTS):
        assert DEFAULT.server_of(text) == LIGHT, "every solution would run with more modules or numpy, which costs time"
    assert b"numpy.generic" in bytes.fromhex(judging._CALLS)
