"""A sandbox service that executes nothing, for measuring and testing everything around it.

    CODEALIGN_SANDBOX_PORT=7403 python -m tests.bench.instant_sandbox

A verdict is drawn from the program's text, the same each time. It says that gVisor stood around it, as the coordinator
publishes nothing else: so it lives here, and no package of the product knows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common.server import ALL, Callers, Readiness, Registration, serve
from codealign.common.settings import ServerSettings
from codealign.sandbox import validate

SERVICE = "codealign.api.sandbox.v1.SandboxService"
CALLERS: Callers = {"coordinator": ALL, "client": ALL}
PROFILE = "default"
_DIGEST = "sha256:" + hashlib.sha256(b"nothing is executed").hexdigest()


class Settings(ServerSettings):
    """Settings of the fake verdicts."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_SANDBOX_")

    passes: float = Field(default=0.2, ge=0, le=1)
    """Share of programs with the verdict PASSED. The others have a failing assertion."""
    believes: bool = False
    """Judge by executing in this process, so that instructions keep their pass rates. For programs of the simulated
    engine alone, which are harmless."""


def verdict_of(program: pb.Program, passes: float) -> pb.Verdict.ValueType:
    """Return a program's verdict, drawn from its text alone."""
    digest = hashlib.sha256(f"{program.code}\0{program.tests}".encode("utf-8", "surrogatepass")).digest()
    return pb.VERDICT_PASSED if int.from_bytes(digest[:8]) < passes * 2**64 else pb.VERDICT_FAILED_ASSERTION


def verdict_of_simulated(program: pb.Program) -> pb.Verdict.ValueType:
    """Return the verdict on a program of the simulated engine, by executing it here."""
    if "assert " not in program.tests:
        return pb.VERDICT_NO_TESTS
    if "while " in program.code:
        return pb.VERDICT_TIMED_OUT
    try:
        exec(compile(f"{program.code}\n{program.tests}\n", "simulated", "exec"), {})
    except SyntaxError:
        return pb.VERDICT_SYNTAX_ERROR
    except AssertionError:
        return pb.VERDICT_FAILED_ASSERTION
    except SystemExit:
        return pb.VERDICT_EXITED_EARLY
    except Exception:
        return pb.VERDICT_RAISED
    return pb.VERDICT_PASSED


class InstantSandbox(rpc.SandboxServiceServicer):
    """A sandbox service that answers immediately."""

    def __init__(self, passes: float, *, believes: bool = False) -> None:
        self._passes, self._believes = passes, believes
        self._done = 0

    async def Execute(self, request: pb.ExecuteRequest, context: Any) -> pb.ExecuteResponse:
        """Return one verdict."""
        return pb.ExecuteResponse(result=self._result(request))

    async def ExecuteStream(
        self, request_iterator: AsyncIterator[pb.ExecuteStreamRequest], context: Any
    ) -> AsyncIterator[pb.ExecuteStreamResponse]:
        """Return a verdict for each program."""
        async for message in request_iterator:
            yield pb.ExecuteStreamResponse(result=self._result(message.request))

    async def GetCapacity(self, request: pb.GetCapacityRequest, context: Any) -> pb.GetCapacityResponse:
        """Report ample capacity."""
        return pb.GetCapacityResponse(runners=1, slots=64, queue_limit=1024)

    async def GetRunner(self, request: pb.GetRunnerRequest, context: Any) -> pb.GetRunnerResponse:
        """Describe one runner."""
        runner = pb.Runner(
            name="instant",
            state=pb.RUNNER_STATE_READY,
            backend="runsc",
            platform="systrap",
            isolation=pb.ISOLATION_GVISOR,
            isolation_checks=[pb.IsolationCheck(name="kernel", passed=True, evidence="nothing is executed")],
            slots=64,
            image_digest=_DIGEST,
            python_version="3.11.2",
            profiles=[PROFILE],
            profile_limits=validate.resolved_limits([PROFILE]),
        )
        return pb.GetRunnerResponse(runners=[runner])

    def _result(self, request: pb.ExecuteRequest) -> pb.Result:
        self._done += 1
        program = request.program
        verdict = verdict_of_simulated(program) if self._believes else verdict_of(program, self._passes)
        return pb.Result(
            request_id=request.request_id,
            verdict=verdict,
            detail="" if verdict == pb.VERDICT_PASSED else "AssertionError: not executed",
            assertions_executed=1,
            assertions_total=1,
            isolation=pb.ISOLATION_GVISOR,
            runner="instant",
            image_digest=_DIGEST,
        )


@asynccontextmanager
async def build(settings: Settings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    """Build the service."""
    sandbox = InstantSandbox(settings.passes, believes=settings.believes)
    yield [Registration(SERVICE, rpc.add_SandboxServiceServicer_to_server, sandbox, CALLERS)]


def main() -> None:
    """Serve until stopped."""
    serve("sandbox", Settings, build)


if __name__ == "__main__":
    main()
