"""Runners started by the gateway: processes that exchange frames over standard input and output."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Callable, Sequence

from codealign.api.runner.v1 import runner_pb2
from codealign.common.logs import get_logger
from codealign.sandbox import launch
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost, attach
from codealign.sandbox.runners.hostview import HostView

_LENGTH = struct.Struct(">I")
_FRAME_LIMIT = 128 * 1024 * 1024
_END_SECONDS = 2.0
_STDERR_LINES = 50
_SAID_LINES = 3

log = get_logger(__name__)


class Pipes:
    """Link to a process that was started with pipes as its standard streams.

    Args:
        process: A process that was just started.
        name: Name of the runner, for its log.
        closed: Called once, in a thread, when the process has ended, to remove what belonged to it.
        is_child: See `start`.
    """

    patience_seconds = 60.0

    def __init__(
        self, process: asyncio.subprocess.Process, name: str, closed: Callable[[], None], *, is_child: bool
    ) -> None:
        self._process = process
        self._name = name
        self._closed = closed
        self._said: list[str] = []
        self._listener = asyncio.create_task(self._listen())
        self._view = HostView(process.pid) if is_child else None
        self._end: asyncio.Task[None] | None = None

    @property
    def last_words(self) -> str:
        """The end of its standard error output."""
        return " | ".join(self._said[-_SAID_LINES:])

    async def send(self, frame: runner_pb2.AttachRequest) -> None:
        """See `Link`."""
        body = frame.SerializeToString()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_LENGTH.pack(len(body)) + body)
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise RunnerLost(f"standard input is closed: {error}") from error

    async def receive(self) -> runner_pb2.AttachResponse:
        """See `Link`."""
        assert self._process.stdout is not None
        try:
            (size,) = _LENGTH.unpack(await self._process.stdout.readexactly(_LENGTH.size))
            if size > _FRAME_LIMIT:
                raise RunnerLost(f"a frame of {size} bytes exceeds the limit")
            return runner_pb2.AttachResponse.FromString(await self._process.stdout.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.close()
            said = f": {self.last_words}" if self._said else ""
            raise RunnerLost(f"exit code {self._process.returncode}{said}") from None

    @property
    def resident_bytes(self) -> int:
        """See `Link`."""
        return self._view.resident_bytes if self._view else 0

    async def cpu_seconds(self) -> float | None:
        """See `Link`."""
        return await self._view.cpu_seconds() if self._view else None

    async def close(self) -> None:
        """See `Link`."""
        if self._end is None:
            self._end = asyncio.create_task(self._finish())
        await asyncio.shield(self._end)

    async def _finish(self) -> None:
        """Close its standard input, at whose end a runner ends. Kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        # A process that still holds its standard error must not delay its jobs, which are failed after this.
        await asyncio.wait((self._listener,), timeout=_END_SECONDS)
        self._listener.cancel()
        if self._view:
            await self._view.close()
        await asyncio.to_thread(self._closed)

    async def _listen(self) -> None:
        """Log standard error of the supervisor and of what starts it. Programs cannot write there."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue  # Drop a line that exceeds the limit.
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self._said.append(text)
            del self._said[:-_STDERR_LINES]
            log.info("runner_says", runner=self._name, text=text[:500])


async def start(
    command: Sequence[str], name: str, closed: Callable[[], None], seconds: float, *, is_child: bool = True
) -> AttachedRunner:
    """Start a runner that dies with this process, and wait for its hello.

    Args:
        command: Must run a supervisor with the transport `codealign.runner.stdio`.
        name: Name of the runner, for its log.
        closed: Called once, in a thread, when the process has ended, also on failure.
        seconds: Timeout for the hello.
        is_child: Whether the runner's processes descend from the command's. False if a daemon starts them.

    Raises:
        RunnerLost: It did not start; the message has the end of its standard error.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid())),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            # Ctrl-C at a terminal is for the gateway, which drains its runners first.
            start_new_session=True,
        )
    except BaseException:
        await asyncio.to_thread(closed)
        raise
    return await attach(Pipes(process, name, closed, is_child=is_child), seconds)
