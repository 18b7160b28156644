"""A runner at the other end of a pair of pipes, speaking frames: the same for every way of starting one."""

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb

_LENGTH = struct.Struct(">I")
_FRAME_LIMIT = 128 * 1024 * 1024
_END_SECONDS = 2.0


class RunnerLost(Exception):
    """The runner ended, or its stream did: what it was doing is unknown."""


class AttachedRunner:
    """One runner process and the jobs that it has.

    Attributes:
        description: What its hello said.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, description: pb.Runner, closed: Callable[[], Awaitable[None]]
    ) -> None:
        """Use `attach`."""
        self.description = description
        self._process = process
        self._closed = closed
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[pb.Result]] = {}
        self._ended = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @property
    def is_alive(self) -> bool:
        """Whether it can take a job."""
        return not self._ended.is_set()

    async def wait_ended(self) -> None:
        """Until the runner is gone."""
        await self._ended.wait()

    async def execute(self, request: pb.ExecuteRequest) -> pb.Result:
        """Runs one job; the caller keeps to the number of slots.

        When the caller is cancelled the runner is told, and the call ends when the slot is free again.

        Raises:
            RunnerLost: It ended before the outcome.
        """
        if not self.is_alive:
            raise RunnerLost(f"runner {self.description.name} has ended")
        number = next(self._ids)
        outcome = asyncio.get_running_loop().create_future()
        self._waiting[number] = outcome
        try:
            await self._send(runner_pb2.AttachRequest(job=runner_pb2.Job(id=number, request=request)))
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            await self._abandon(number, outcome)
            raise
        finally:
            self._waiting.pop(number, None)

    async def _abandon(self, number: int, outcome: "asyncio.Future[pb.Result]") -> None:
        try:
            await self._send(runner_pb2.AttachRequest(cancel=runner_pb2.Cancel(id=number)))
            await outcome
        except RunnerLost:
            return

    async def drain(self, seconds: float) -> None:
        """Lets it finish what it has, at most so long, and ends it."""
        if self.is_alive:
            try:
                await self._send(runner_pb2.AttachRequest(drain=runner_pb2.Drain()))
                await asyncio.wait_for(self._ended.wait(), seconds)
            except (RunnerLost, TimeoutError):
                pass
        await self.close()

    async def close(self) -> None:
        """Ends it now."""
        await _end(self._process)
        await self._reader

    async def _send(self, frame: runner_pb2.AttachRequest) -> None:
        body = frame.SerializeToString()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_LENGTH.pack(len(body)) + body)
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise RunnerLost(f"runner {self.description.name}: {error}") from error

    async def _read(self) -> None:
        try:
            while True:
                frame = await _read_frame(self._process)
                outcome = self._waiting.get(frame.outcome.id)
                if outcome is not None and not outcome.done():
                    outcome.set_result(frame.outcome.result)
        except (RunnerLost, ValueError):
            pass
        finally:
            self._ended.set()
            for outcome in self._waiting.values():
                if not outcome.done():
                    outcome.set_exception(RunnerLost(f"runner {self.description.name} ended while it had the job"))
                    outcome.exception()  # Taken note of, should nobody wait any more.
            await _end(self._process)
            await self._closed()


async def _read_frame(process: asyncio.subprocess.Process) -> runner_pb2.AttachResponse:
    assert process.stdout is not None
    try:
        (size,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
        if size > _FRAME_LIMIT:
            raise RunnerLost(f"a frame of {size} bytes")
        return runner_pb2.AttachResponse.FromString(await process.stdout.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise RunnerLost(f"its stream ended: {error}") from error


async def _end(process: asyncio.subprocess.Process) -> int:
    """The end of its standard input is what a runner ends of; one that does not is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        return await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        process.kill()
        return await process.wait()


async def attach(
    process: asyncio.subprocess.Process, closed: Callable[[], Awaitable[None]], seconds: float
) -> AttachedRunner:
    """Waits for the hello of a runner that was just started.

    Args:
        process: Started with pipes at its standard input and output.
        closed: Called once when the process has ended: removes what belonged to it.
        seconds: How long the hello may take.

    Raises:
        RunnerLost: It ended without one, or took too long. The process is ended then.
    """
    try:
        frame = await asyncio.wait_for(_read_frame(process), seconds)
    except (RunnerLost, TimeoutError) as error:
        code = await _end(process)
        await closed()
        raise RunnerLost(f"the runner did not say hello (exit code {code}): {error or 'it took too long'}") from error
    return AttachedRunner(process, frame.hello.runner, closed)
