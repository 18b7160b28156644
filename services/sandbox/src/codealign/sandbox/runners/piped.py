"""Runners that the gateway starts: a process whose standard input and output carry the frames."""

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
    """The link to a process that was started with pipes as its standard streams."""

    patience_seconds = 60.0

    def __init__(
        self, process: asyncio.subprocess.Process, name: str, closed: Callable[[], None], *, is_child: bool
    ) -> None:
        """Takes a process over.

        Args:
            process: Just started.
            name: The runner's, for its log.
            closed: Called once, in a thread, when the process has ended: removes what belonged to it.
            is_child: See `start`.
        """
        self._process = process
        self._name = name
        self._closed = closed
        self._said: list[str] = []
        self._listener = asyncio.create_task(self._listen())
        self._view = HostView(process.pid) if is_child else None
        self._end: asyncio.Task[None] | None = None

    @property
    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        return " | ".join(self._said[-_SAID_LINES:])

    async def send(self, frame: runner_pb2.AttachRequest) -> None:
        """See `Link`."""
        body = frame.SerializeToString()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_LENGTH.pack(len(body)) + body)
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise RunnerLost(f"its standard input is closed: {error}") from error

    async def receive(self) -> runner_pb2.AttachResponse:
        """See `Link`."""
        assert self._process.stdout is not None
        try:
            (size,) = _LENGTH.unpack(await self._process.stdout.readexactly(_LENGTH.size))
            if size > _FRAME_LIMIT:
                raise RunnerLost(f"a frame of {size} bytes")
            return runner_pb2.AttachResponse.FromString(await self._process.stdout.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.close()
            said = f": {self.last_words}" if self._said else ""
            raise RunnerLost(f"it ended with exit code {self._process.returncode}{said}") from None

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
        """The end of its standard input is what a runner ends of; one that does not is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        # Whoever still holds its standard error must not keep its jobs waiting: they are told after this.
        await asyncio.wait((self._listener,), timeout=_END_SECONDS)
        self._listener.cancel()
        if self._view:
            await self._view.close()
        await asyncio.to_thread(self._closed)

    async def _listen(self) -> None:
        """Standard error of what starts the supervisor, and of the supervisor: no program writes there."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue  # A line beyond the limit: dropped.
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self._said.append(text)
            del self._said[:-_STDERR_LINES]
            log.info("runner_says", runner=self._name, text=text[:500])


async def start(
    command: Sequence[str], name: str, closed: Callable[[], None], seconds: float, *, is_child: bool = True
) -> AttachedRunner:
    """Starts a runner that dies with this process, and waits for its hello.

    Args:
        command: Ends in a supervisor with the transport `codealign.runner.stdio`.
        name: The runner's, for its log.
        closed: Called once, in a thread, when the process has ended, also where this fails.
        seconds: How long the hello may take.
        is_child: Whether the runner's own processes descend from the command's: not so where a daemon starts them.

    Raises:
        RunnerLost: It did not come up; the message has the end of its standard error.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid())),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            # A Ctrl-C at a terminal is the gateway's: it drains its runners first.
            start_new_session=True,
        )
    except BaseException:
        await asyncio.to_thread(closed)
        raise
    return await attach(Pipes(process, name, closed, is_child=is_child), seconds)
