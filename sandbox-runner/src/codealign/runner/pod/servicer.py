"""gRPC service of a runner pod: one stream of frames per gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from codealign.api.runner.v1 import runner_pb2
from codealign.api.runner.v1 import runner_pb2_grpc as rpc
from codealign.common.errors import CodeAlignError, InvalidArgument, ResourceExhausted, Unavailable
from codealign.common.logs import get_logger
from codealign.runner.session import ProtocolError, Session, TooManyJobs
from codealign.runner.supervisor import Supervisor

_Outgoing = asyncio.Queue[runner_pb2.AttachResponse | CodeAlignError | None]
"""Frames, then an error or None to end the stream."""

log = get_logger(__name__)


class RunnerServicer(rpc.RunnerServiceServicer):
    """Implements `codealign.api.runner.v1.RunnerService`.

    Several gateways may be attached, each with as many concurrent jobs as there are slots. Jobs are served in order of
    arrival. A stream that ends, for whatever reason, cancels only its own jobs.

    Args:
        supervisor: A started supervisor.
        draining: Set when the runner shuts down: running jobs are finished and then every stream is closed.
        gateways: Maximum number of streams.
    """

    def __init__(self, supervisor: Supervisor, draining: asyncio.Event, gateways: int) -> None:
        self._supervisor = supervisor
        self._draining = draining
        self._gateways = gateways
        self._attached = 0

    async def Attach(
        self, request_iterator: AsyncIterator[runner_pb2.AttachRequest], context: Any
    ) -> AsyncIterator[runner_pb2.AttachResponse]:
        """Serve one gateway."""
        if self._draining.is_set():
            raise Unavailable("this runner is shutting down")
        if self._attached >= self._gateways:
            raise ResourceExhausted(
                f"{self._gateways} gateways are already attached: run fewer, or raise CODEALIGN_RUNNER_GATEWAYS"
            )
        self._attached += 1
        log.info("gateway_attached", peer=context.peer(), gateways=self._attached)
        try:
            async with contextlib.aclosing(self._serve(request_iterator)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._attached -= 1
            log.info("gateway_detached", peer=context.peer(), gateways=self._attached)

    async def _serve(
        self, request_iterator: AsyncIterator[runner_pb2.AttachRequest]
    ) -> AsyncGenerator[runner_pb2.AttachResponse]:
        loop, outgoing = asyncio.get_running_loop(), _Outgoing()

        def send(frame: runner_pb2.AttachResponse | None) -> None:
            with contextlib.suppress(RuntimeError):  # The server has stopped and nobody is waiting.
                loop.call_soon_threadsafe(outgoing.put_nowait, frame)

        session = Session(self._supervisor, send, lambda: send(None))
        session.hello()
        tasks = [
            asyncio.create_task(_take(session, request_iterator, outgoing)),
            asyncio.create_task(self._end(session)),
        ]
        try:
            while (item := await outgoing.get()) is not None:
                if isinstance(item, CodeAlignError):
                    raise item
                yield item
        finally:
            session.abandon()
            for task in tasks:
                task.cancel()

    async def _end(self, session: Session) -> None:
        await self._draining.wait()
        session.say_draining()
        session.drain()


async def _take(session: Session, frames: AsyncIterator[runner_pb2.AttachRequest], outgoing: _Outgoing) -> None:
    """Handle frames until the gateway stops sending. It sends Drain first if it still wants results."""
    try:
        async for frame in frames:
            session.take(frame)
            if frame.HasField("drain"):
                return
        outgoing.put_nowait(None)
    except TooManyJobs as error:
        outgoing.put_nowait(ResourceExhausted(str(error)))
    except ProtocolError as error:
        outgoing.put_nowait(InvalidArgument("frame", str(error)))
