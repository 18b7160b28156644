"""The wire side of a runner pod: streams of frames, one for each gateway."""

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
"""Frames; the error, or the None, that ends the stream."""

log = get_logger(__name__)


class RunnerServicer(rpc.RunnerServiceServicer):
    """Implements `codealign.api.runner.v1.RunnerService`.

    Several gateways may be attached, each with as many jobs at once as there are slots: theirs wait for each other in
    the order in which they came. A stream that ends, however it ends, takes its own jobs with it and no others.
    """

    def __init__(self, supervisor: Supervisor, draining: asyncio.Event, gateways: int) -> None:
        """Serves with what `main` wired together.

        Args:
            supervisor: Started.
            draining: Set when this runner is to stop: what runs is finished, and every stream then ended.
            gateways: Streams at once.
        """
        self._supervisor = supervisor
        self._draining = draining
        self._gateways = gateways
        self._attached = 0

    async def Attach(
        self, request_iterator: AsyncIterator[runner_pb2.AttachRequest], context: Any
    ) -> AsyncIterator[runner_pb2.AttachResponse]:
        """Serves one gateway."""
        if self._draining.is_set():
            raise Unavailable("this runner is being stopped")
        if self._attached >= self._gateways:
            raise ResourceExhausted(
                f"{self._gateways} gateways are attached already: run fewer, or raise CODEALIGN_RUNNER_GATEWAYS"
            )
        self._attached += 1
        log.info("gateway_attached", peer=context.peer(), gateways=self._attached)
        try:
            async with contextlib.aclosing(self._serve(request_iterator)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._attached -= 1
            log.info("gateway_left", peer=context.peer(), gateways=self._attached)

    async def _serve(
        self, request_iterator: AsyncIterator[runner_pb2.AttachRequest]
    ) -> AsyncGenerator[runner_pb2.AttachResponse]:
        loop, outgoing = asyncio.get_running_loop(), _Outgoing()

        def send(frame: runner_pb2.AttachResponse | None) -> None:
            with contextlib.suppress(RuntimeError):  # The server has ended, and nobody waits.
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
    """Until the gateway has no more to say: it says Drain first where it wants its outcomes."""
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
