"""A sandbox server that follows its request's id: answers, fails in a given way, or takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import structlog
from pydantic_settings import SettingsConfigDict

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from codealign.common.server import ALL, Callers, Readiness, Registration, serve
from codealign.common.settings import ServerSettings

SERVICE = "codealign.api.sandbox.v1.SandboxService"
CALLERS: Callers = {"coordinator": ("Execute",), "trainer": ("ExecuteStream",), "client": ALL}
Context = grpc.aio.ServicerContext[Any, Any]


class OddSettings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="CODEALIGN_ODD_")

    ready: bool = True


class Odd(rpc.SandboxServiceServicer):
    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.cancelled = 0

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        wish = request.request_id
        self.calls[wish] = self.calls.get(wish, 0) + 1
        if wish == "bad":
            raise InvalidArgument(violations=[("program.code", "is empty"), ("limits.cpu_seconds", "is negative")])
        if wish == "long-not-found":
            raise NotFound(f"there is no {'é' * 100_000!r}\ud800")
        if wish == "many-fields":
            raise InvalidArgument(violations=[(f"fields[{number}]", "%" * 5_000) for number in range(50)])
        if wish == "full":
            raise ResourceExhausted("the queue is full", retry_after=0.25)
        if wish == "twice-away" and self.calls[wish] < 3:
            raise Unavailable("away", retry_after=0.05)
        if wish == "unconnected":
            raise Unavailable("the database cannot be connected", retry_after=1)
        if wish == "precondition":
            raise FailedPrecondition("an isolation check failed")
        if wish == "fault":
            raise KeyError("oops")
        if wish.startswith("block-"):
            time.sleep(float(wish.removeprefix("block-")))  # noqa: ASYNC251 (no call begins meanwhile)
        if wish.startswith("sleep-"):
            try:
                await asyncio.sleep(float(wish.removeprefix("sleep-")))
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        detail = f"calls={self.calls[wish]} cancelled={self.cancelled} "
        detail += f"request={structlog.contextvars.get_contextvars()['request_id']} left={context.time_remaining():.1f}"
        return pb.ExecuteResponse(result=pb.Result(request_id=wish, detail=detail))

    async def ExecuteStream(
        self, request_iterator: AsyncIterator[pb.ExecuteStreamRequest], context: Context
    ) -> AsyncIterator[pb.ExecuteStreamResponse]:
        async for item in request_iterator:
            yield pb.ExecuteStreamResponse(result=pb.Result(request_id=item.request.request_id))

    async def GetCapacity(self, request: pb.GetCapacityRequest, context: Context) -> pb.GetCapacityResponse:
        return pb.GetCapacityResponse(slots=1)

    async def GetRunner(self, request: pb.GetRunnerRequest, context: Context) -> pb.GetRunnerResponse:
        return pb.GetRunnerResponse()


@contextlib.asynccontextmanager
async def build(settings: OddSettings, readiness: Readiness) -> AsyncIterator[Sequence[Registration]]:
    if not settings.ready:
        await readiness.set(False, "as asked")
    yield [Registration(SERVICE, rpc.add_SandboxServiceServicer_to_server, Odd(), CALLERS)]


if __name__ == "__main__":
    serve("odd", OddSettings, build)
