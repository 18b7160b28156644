"""Backend `grpc`: a runner is a server operated by others; the gateway holds one stream to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import grpc

from codealign.api.runner.v1 import runner_pb2
from codealign.api.runner.v1.runner_pb2_grpc import RunnerServiceStub
from codealign.common.clients import ClientTls, connect
from codealign.common.errors import describe
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost, attach

_MESSAGE_BYTES = 128 * 1024 * 1024


class Stream:
    """Link to a runner's server. Opens the stream.

    Args:
        channel: A channel to one runner. Closed with the stream.
    """

    # Its slots may be busy for other gateways, each for as long as its longest request.
    patience_seconds = 900.0

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._closed = False
        self._call = RunnerServiceStub(channel).Attach()
        self._outgoing: asyncio.Queue[runner_pb2.AttachRequest] = asyncio.Queue()
        # A separate task, because a cancelled write would end the stream.
        self._writer = asyncio.create_task(self._write())

    async def send(self, frame: runner_pb2.AttachRequest) -> None:
        """See `Link`."""
        if self._call.done():
            raise RunnerLost("the stream has ended")
        self._outgoing.put_nowait(frame)

    async def receive(self) -> runner_pb2.AttachResponse:
        """See `Link`."""
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise RunnerLost(describe(error)) from error
        except asyncio.CancelledError:
            if self._closed:
                raise RunnerLost("the stream was closed by this gateway") from None
            raise
        if not isinstance(frame, runner_pb2.AttachResponse):
            raise RunnerLost("the runner closed its stream")
        return frame

    @property
    def resident_bytes(self) -> int:
        """See `Link`. Always 0: a pod has a memory limit of its own."""
        return 0

    async def cpu_seconds(self) -> float | None:
        """See `Link`."""
        return None

    async def close(self) -> None:
        """See `Link`."""
        self._closed = True
        self._writer.cancel()
        self._call.cancel()
        await self._channel.close()

    async def _write(self) -> None:
        # The reader reports the end of the stream.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._call.write(await self._outgoing.get())


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteBackend:
    """Reaches the runner at one address."""

    address: str
    tls: ClientTls
    tls_name: str
    start_seconds: float

    async def start(self) -> AttachedRunner:
        """Attach to the runner.

        Raises:
            RunnerLost: It cannot be reached, or does not send a hello.
        """
        options = [("grpc.ssl_target_name_override", self.tls_name)] if self.tls_name else []
        channel = connect(self.address, self.tls, max_message_bytes=_MESSAGE_BYTES, more_options=options)
        try:
            return await attach(Stream(channel), self.start_seconds)
        except RunnerLost as error:
            raise RunnerLost(f"{self.address}: {error}") from error
