"""In which of the sandbox's profiles solutions are executed."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common.clients import Addresses, Clients
from codealign.common.errors import InvalidArgument
from codealign.coordinator import calls
from codealign.coordinator.evaluation import judging
from codealign.coordinator.evaluation.judging import Judge
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import CallTests, CheckTests, Part, Problem
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.tally import StageTally


class Sandbox(rpc.SandboxServiceServicer):
    """Passes every program; its answer to one that imports numpy is as it was told."""

    def __init__(self) -> None:
        self.says: sb.Verdict.ValueType | None = None
        """None: it does not offer the profile."""
        self.requests: list[sb.ExecuteRequest] = []

    async def Execute(self, request: sb.ExecuteRequest, context: Any) -> sb.ExecuteResponse:
        self.requests.append(request)
        verdict = self.says if request.program.code == "import numpy\n" else sb.VERDICT_PASSED
        if verdict is None:
            refusal = InvalidArgument("profile", "the runners have 'default', not 'numpy'")
            await context.abort_with_status(rpc_status.to_status(refusal.to_status()))
            raise AssertionError
        return sb.ExecuteResponse(result=sb.Result(verdict=verdict, isolation=sb.ISOLATION_GVISOR))


@pytest.fixture
async def sandbox() -> AsyncIterator[tuple[Sandbox, Judge]]:
    server, servicer = grpc.aio.server(), Sandbox()  # type: ignore[abstract]
    rpc.add_SandboxServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Clients(Addresses(sandbox=f"127.0.0.1:{port}")) as clients:
        yield servicer, Judge(clients, asyncio.Semaphore(2), StageTally(), lambda: None, KnownResults())
    await server.stop(None)


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
    servicer, judge = sandbox
    servicer.says = says
    solutions = [f"def f(): return {number}" for number in range(4)]
    results = await asyncio.gather(*(judge.judge(CHECK, solution) for solution in solutions))
    assert [result and result.verdict for result in results] == [sb.VERDICT_PASSED] * 4
    first, *others = servicer.requests
    assert first.program.code == "import numpy\n", "it is asked once, before any solution"
    assert first.profile == "numpy"
    assert sorted(other.program.code for other in others) == solutions
    assert {other.profile for other in others} == {profile}


async def test_while_the_infrastructure_fails_nothing_is_decided(
    sandbox: tuple[Sandbox, Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_PAUSE_SECONDS", 0.0)
    servicer, judge = sandbox
    servicer.says = sb.VERDICT_INFRASTRUCTURE
    assert await judge.judge(CHECK, "def f(): return 1") is None
    servicer.says = sb.VERDICT_COMPLETED
    result = await judge.judge(CHECK, "def f(): return 1")
    assert result is not None
    assert servicer.requests[-1].profile == "numpy"


async def test_our_own_part_of_a_program_does_not_name_numpy(sandbox: tuple[Sandbox, Judge]) -> None:
    servicer, judge = sandbox
    servicer.says = sb.VERDICT_COMPLETED
    tests = CallTests((Part("base", ([1],)),), "def f(x): return x\n")
    problem = Problem("humaneval+", "HumanEval/0", "", "f", "def f(x): return x\n", tests)
    with pytest.raises(RunFailed):  # this sandbox writes no outputs
        await judge.judge(problem, "def f(x): return x\n")
    sent = servicer.requests[-1]
    assert (sent.profile, sent.program.code) == ("numpy", tests.reference)
    # Else every solution would be executed beside numpy, which costs time.
    assert "numpy" not in sent.program.tests
    assert ast.literal_eval(judging._CALLS) == judging._source("calls.py")
