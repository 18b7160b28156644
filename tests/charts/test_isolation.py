"""The program of `helm test`, against a gateway that isolates programs and against ones that do not."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping
from concurrent import futures
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from tests.charts.rendered import CHART

PROGRAM = CHART / "files" / "isolation.py"
SOUND = pb.Runner(
    name="pod-1",
    state=pb.RUNNER_STATE_READY,
    isolation=pb.ISOLATION_GVISOR,
    isolation_checks=[pb.IsolationCheck(name="kernel", passed=True, evidence="gVisor")],
)


class Gateway(rpc.SandboxServiceServicer):
    """A gateway with prescribed answers."""

    def __init__(
        self, runners: list[pb.Runner], unavailable: int = 0, verdicts: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.runners = runners
        self.unavailable = unavailable
        self.verdicts = verdicts
        self.isolation = pb.ISOLATION_GVISOR

    def Execute(self, request: pb.ExecuteRequest, context: Any) -> pb.ExecuteResponse:
        if self.unavailable:
            self.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "no runner yet")
        compile(request.program.code, "code", "exec")
        compile(request.program.tests, "tests", "exec")
        told = self._expected(request.program.code)
        verdict = pb.Verdict.Value(f"VERDICT_{self.verdicts.get(told, told)}")
        return pb.ExecuteResponse(result=pb.Result(verdict=verdict, isolation=self.isolation))

    def GetRunner(self, request: pb.GetRunnerRequest, context: Any) -> pb.GetRunnerResponse:
        return pb.GetRunnerResponse(runners=self.runners)

    def ExecuteStream(self, request_iterator: Any, context: Any) -> Iterator[pb.ExecuteStreamResponse]:
        raise NotImplementedError

    def GetCapacity(self, request: pb.GetCapacityRequest, context: Any) -> pb.GetCapacityResponse:
        raise NotImplementedError

    @staticmethod
    def _expected(code: str) -> str:
        signs = {"fork": "PROCESS_LIMIT", "bytearray": "OUT_OF_MEMORY", "while True: pass": "TIMED_OUT"}
        signs["sys.exit"] = "EXITED_EARLY"
        return next((verdict for sign, verdict in signs.items() if sign in code), "PASSED")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    servers = []

    def ended(gateway: Gateway) -> int:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        servers.append(server)
        rpc.add_SandboxServiceServicer_to_server(gateway, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        monkeypatch.setenv("SANDBOX_ADDRESS", f"127.0.0.1:{port}")
        monkeypatch.setenv("TEST_SECONDS", "20")
        monkeypatch.setenv("CLOSED_ADDRESSES", "10.0.0.1:443")
        code: int = runpy.run_path(str(PROGRAM))["main"]()
        return code

    yield ended
    for server in servers:
        server.stop(None)


def test_a_sandbox_that_keeps_programs_in_passes_also_when_it_is_still_starting(run: Any) -> None:
    assert run(Gateway([SOUND], unavailable=1)) == 0


@pytest.mark.parametrize(
    "lie", [{"EXITED_EARLY": "PASSED"}, {"PASSED": "FAILED_ASSERTION"}, {"TIMED_OUT": "COMPLETED"}]
)
def test_a_wrong_verdict_fails(run: Any, lie: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Gateway([SOUND], verdicts=lie)) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_check_that_does_not_pass_is_named(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    broken = pb.Runner()
    broken.CopyFrom(SOUND)
    broken.isolation_checks.add(name="network", passed=False, evidence="reached the node")
    assert run(Gateway([SOUND, broken])) == 1
    assert "network: reached the node" in capsys.readouterr().out


def test_weaker_isolation_or_none_fails(run: Any) -> None:
    weak = pb.Runner()
    weak.CopyFrom(SOUND)
    weak.isolation = pb.ISOLATION_PROCESS
    assert run(Gateway([weak])) == 1
    assert run(Gateway([])) == 1
    gateway = Gateway([SOUND])
    gateway.isolation = pb.ISOLATION_PROCESS
    assert run(gateway) == 1
