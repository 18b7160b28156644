"""gRPC service of the gateway: converts between protobuf messages and calls."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2_grpc as rpc
from codealign.common import access
from codealign.common.errors import InvalidArgument, NotFound, ResourceExhausted
from codealign.sandbox import validate
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.pool import Pool

_STREAM_PAUSE_SECONDS = 1.0
"""Longest pause before a stream retries a request for which the queue was full."""


def _seconds_left(context: Any) -> float:
    """Return the seconds until the caller's deadline, or infinity if it has none."""
    seconds = context.time_remaining()
    return math.inf if seconds is None else float(seconds)


def _with_limits(runner: pb.Runner) -> pb.Runner:
    """Return a runner description with the limits of its profiles.

    These are this gateway's limits, whatever the runner's release, because the gateway fills them into a job.
    """
    described = pb.Runner()
    described.CopyFrom(runner)
    del described.profile_limits[:]
    described.profile_limits.extend(validate.resolved_limits(runner.profiles))
    return described


class SandboxServicer(rpc.SandboxServiceServicer):
    """Implements `codealign.api.sandbox.v1.SandboxService`.

    Args:
        dispatcher: Takes validated requests.
        pool: The runners.
        stream_window: Maximum unanswered requests of one stream.
    """

    def __init__(self, dispatcher: Dispatcher, pool: Pool, stream_window: int) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._stream_window = stream_window

    async def Execute(self, request: pb.ExecuteRequest, context: Any) -> pb.ExecuteResponse:
        """Run one program."""
        checked = validate.checked(request)
        self._pool.check()
        result = await self._dispatcher.execute(checked, access.peer_of(context), _seconds_left(context))
        return pb.ExecuteResponse(result=result)

    async def ExecuteStream(
        self, request_iterator: AsyncIterator[pb.ExecuteStreamRequest], context: Any
    ) -> AsyncIterator[pb.ExecuteStreamResponse]:
        """Run programs as they arrive, and return results in the order in which they finish."""
        self._pool.check()
        finished: asyncio.Queue[asyncio.Task[pb.Result] | None] = asyncio.Queue()
        window = asyncio.Semaphore(self._stream_window)
        running: set[asyncio.Task[pb.Result]] = set()
        caller = access.peer_of(context)

        async def take() -> None:
            async for message in request_iterator:
                await window.acquire()
                task = asyncio.create_task(self._one_of_many(message.request, caller, context))
                running.add(task)
                task.add_done_callback(finished.put_nowait)
            await asyncio.gather(*running, return_exceptions=True)

        taker = asyncio.create_task(take())
        taker.add_done_callback(lambda _: finished.put_nowait(None))
        try:
            while (task := await finished.get()) is not None:
                running.discard(task)
                window.release()
                yield pb.ExecuteStreamResponse(result=task.result())
            await taker
        finally:
            for unfinished in (taker, *running):
                unfinished.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(taker, *running, return_exceptions=True)

    async def _one_of_many(self, request: pb.ExecuteRequest, caller: str, context: Any) -> pb.Result:
        """Answer a refused request with a result. If the queue is full, wait: this is the back-pressure."""
        try:
            checked = validate.checked(request)
        except InvalidArgument as error:
            return pb.Result(request_id=request.request_id, verdict=pb.VERDICT_REFUSED, detail=error.message)
        while True:
            self._pool.check()
            try:
                return await self._dispatcher.execute(checked, caller, _seconds_left(context))
            except ResourceExhausted as error:
                await asyncio.sleep(min(error.retry_after, _STREAM_PAUSE_SECONDS))

    async def GetCapacity(self, request: pb.GetCapacityRequest, context: Any) -> pb.GetCapacityResponse:
        """Return the number of slots and of waiting programs."""
        runners = self._pool.descriptions
        return pb.GetCapacityResponse(
            runners=sum(1 for runner in runners if runner.state == pb.RUNNER_STATE_READY),
            slots=self._pool.slots,
            busy=self._dispatcher.busy,
            queued=self._dispatcher.queued,
            queue_limit=self._dispatcher.queue_limit,
            verdicts=dict(self._dispatcher.verdicts),
        )

    async def GetRunner(self, request: pb.GetRunnerRequest, context: Any) -> pb.GetRunnerResponse:
        """Return the runners and their evidence."""
        runners = [runner for runner in self._pool.descriptions if request.name in ("", runner.name)]
        if request.name and not runners:
            raise NotFound(f"unknown runner {request.name!r}")
        return pb.GetRunnerResponse(runners=[_with_limits(runner) for runner in runners])
