"""A runner connected by a stream of frames, independent of how it is reached."""

from __future__ import annotations

import asyncio
import itertools
from typing import Protocol

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.logs import get_logger
from codealign.runner.profiles import DEFAULT, TIME_FACTOR

_CANCEL_SECONDS = 30.0
"""A cancelled job is stopped within this time."""
_RETIRE_SECONDS = 60.0
_STREAM_SECONDS = 2.0
_GROWTH_BYTES = 512 * 1024 * 1024
_TELL_SECONDS = 0.25

log = get_logger(__name__)


class RunnerLost(Exception):
    """The runner or its stream ended; the state of its jobs is unknown."""


class RunnerDrained(RunnerLost):
    """The runner is shutting down and returned the job, which is no fault."""


class Link(Protocol):
    """Carries frames to and from one runner."""

    patience_seconds: float
    """Time beyond its limits that a job may take before the runner counts as hung."""

    async def send(self, frame: runner_pb2.AttachRequest) -> None:
        """Send a frame.

        Raises:
            RunnerLost: The stream is broken.
        """
        ...

    async def receive(self) -> runner_pb2.AttachResponse:
        """Receive the next frame.

        Raises:
            RunnerLost: The stream ended; the message says how.
        """
        ...

    @property
    def resident_bytes(self) -> int:
        """Memory of the runner in bytes, measured from outside, or 0 if unknown."""
        ...

    async def cpu_seconds(self) -> float | None:
        """Return the processor time of the runner since its start, measured from outside, or None if unknown."""
        ...

    async def close(self) -> None:
        """End the stream, and the runner if the gateway started it. Returns when it is gone. Idempotent."""
        ...


class AttachedRunner:
    """One runner and its jobs. Created by `attach`.

    Attributes:
        description: The description in its last hello.
    """

    def __init__(self, link: Link, description: pb.Runner) -> None:
        self.description = description
        self._link = link
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[pb.Result]] = {}
        self._ended = asyncio.Event()
        self._stops = False
        self._idle_bytes = 0
        self._retirement: asyncio.Task[None] | None = None
        self._reader = asyncio.create_task(self._read())
        self._teller = asyncio.create_task(self._tell_processor_time())

    @property
    def is_alive(self) -> bool:
        """Whether the runner can take a job."""
        return not (self._ended.is_set() or self._stops or self._drains)

    async def wait_ended(self) -> None:
        """Wait until the runner is gone."""
        await self._ended.wait()

    async def execute(self, request: pb.ExecuteRequest) -> pb.Result:
        """Run one job. The caller must not exceed the number of slots.

        If the caller is cancelled, the runner is told, and the call ends when the slot is free again.

        Raises:
            RunnerLost: The runner ended before returning a result, or hangs.
        """
        if not self.is_alive:
            raise self._lost("accepts no more jobs")
        number = next(self._ids)
        outcome: asyncio.Future[pb.Result] = asyncio.get_running_loop().create_future()
        self._waiting[number] = outcome
        try:
            frame = runner_pb2.AttachRequest(job=runner_pb2.Job(id=number, request=request))
            await self._send(frame, self._link.patience_seconds)
            # Time spent waiting for a processor does not count; see `TIME_FACTOR`.
            seconds = TIME_FACTOR * request.limits.wall_seconds * max(request.runs, 1) + self._link.patience_seconds
            return await self._within(outcome, seconds)
        except asyncio.CancelledError:
            await self._abandon(number, outcome)
            raise
        except RunnerLost:
            self._give_up()
            raise
        except Exception as error:
            log.exception("runner_failed", runner=self.description.name)
            await asyncio.gather(self.close(), return_exceptions=True)
            raise self._lost(f"failed ({type(error).__name__}: {error})") from error
        finally:
            self._waiting.pop(number, None)

    def _give_up(self) -> None:
        """Take no more jobs and end the runner: it cannot be reached, even if its own stream has not ended yet."""
        if self.is_alive:
            self._stops = True
            self._retirement = asyncio.create_task(self.close())

    async def _tell_processor_time(self) -> None:
        """Report to the runner, while a job takes long, how much processor time the machine gives it."""
        told = 0
        try:
            while True:
                await asyncio.sleep(_TELL_SECONDS)
                # Only if a job was already there last time: most finish earlier, and a measurement costs milliseconds.
                oldest = next(iter(self._waiting), 0)
                if oldest and oldest <= told:
                    seconds = await self._link.cpu_seconds()
                    if seconds is None:
                        return
                    time = runner_pb2.ProcessorTime(seconds=seconds)
                    await self._link.send(runner_pb2.AttachRequest(processor_time=time))
                told = max(self._waiting, default=told)
        except RunnerLost:
            return
        except Exception:
            # Without this report, the runner's limits count every second; nothing else depends on it.
            log.exception("processor_time_not_told", runner=self.description.name)

    async def _send(self, frame: runner_pb2.AttachRequest, seconds: float) -> None:
        """Send a frame. A runner that hangs reads nothing, and a pipe takes no more once it is full.

        Raises:
            RunnerLost: The stream is broken, or the runner did not take the frame in time.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._link.send(frame)
        except TimeoutError:
            log.error("runner_hangs", runner=self.description.name, seconds=seconds)
            await self.close()
            raise self._lost(f"did not take a message within {seconds:g} s") from None

    async def _within(self, outcome: asyncio.Future[pb.Result], seconds: float) -> pb.Result:
        done, _ = await asyncio.wait((outcome,), timeout=seconds)
        if not done:
            log.error("runner_hangs", runner=self.description.name, seconds=seconds)
            # Closing fails all pending calls, including this one.
            await self.close()
        return await outcome

    async def _abandon(self, number: int, outcome: asyncio.Future[pb.Result]) -> None:
        try:
            await self._send(runner_pb2.AttachRequest(cancel=runner_pb2.Cancel(id=number)), _CANCEL_SECONDS)
            await self._within(outcome, _CANCEL_SECONDS)
        except RunnerLost:
            return

    def _retire_if_grown(self) -> None:
        """Retire a runner whose kernel leaks memory: gVisor does not collect reference cycles of sockets."""
        resident = self._link.resident_bytes
        if not resident:
            return  # Not visible from here.
        self._idle_bytes = self._idle_bytes or resident
        each = DEFAULT.defaults.memory_bytes + DEFAULT.defaults.disk_bytes
        if self.is_alive and resident > self._idle_bytes + self.description.slots * each + _GROWTH_BYTES:
            log.warning("runner_has_grown", runner=self.description.name, resident_bytes=resident)
            self._retirement = asyncio.create_task(self.drain(_RETIRE_SECONDS))

    async def drain(self, seconds: float) -> None:
        """Send the runner no more jobs, let it finish for at most `seconds`, and end it."""
        self._stops = True
        if not self._ended.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._link.send(runner_pb2.AttachRequest(drain=runner_pb2.Drain()))
                    await self._ended.wait()
            except (RunnerLost, TimeoutError):
                pass
        await self.close()

    async def close(self) -> None:
        """End the runner now."""
        await self._link.close()
        # Its stream ends with it unless another process still holds the other end.
        await asyncio.wait((self._reader,), timeout=_STREAM_SECONDS)
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    @property
    def _drains(self) -> bool:
        return self.description.state == pb.RUNNER_STATE_DRAINING

    def _lost(self, how: str) -> RunnerLost:
        kind = RunnerDrained if self._drains else RunnerLost
        return kind(f"runner {self.description.name} {how}")

    async def _read(self) -> None:
        how = "ended"
        try:
            while True:
                frame = await self._link.receive()
                if frame.HasField("hello"):
                    self.description = frame.hello.runner
                    log.info("runner_drains", runner=self.description.name)
                    continue
                outcome = self._waiting.get(frame.outcome.id)
                if outcome is not None and not outcome.done():
                    outcome.set_result(frame.outcome.result)
                self._retire_if_grown()
        except RunnerLost as error:
            how = f"ended while it had the job ({error})"
        except Exception as error:
            # An invalid frame, or an error in this gateway: nothing after it can be trusted.
            log.exception("runner_not_understood", runner=self.description.name)
            how = f"sent an invalid message ({type(error).__name__}: {error})"
        finally:
            self._ended.set()
            self._teller.cancel()
            for outcome in self._waiting.values():
                if not outcome.done():
                    outcome.set_exception(self._lost(how))
                    outcome.exception()  # Mark the exception as retrieved, in case nobody waits any more.
            await self._link.close()


async def attach(link: Link, seconds: float) -> AttachedRunner:
    """Wait for a runner's hello.

    Args:
        link: A link to a runner that has not sent anything yet. Closed on failure.
        seconds: Timeout for the hello.

    Raises:
        RunnerLost: The stream ended without a hello, or it took too long.
    """
    try:
        async with asyncio.timeout(seconds):
            frame = await link.receive()
    except TimeoutError:
        await link.close()
        raise RunnerLost(f"no hello from the runner within {seconds:g} s") from None
    except BaseException as error:
        await link.close()
        if isinstance(error, RunnerLost):
            raise RunnerLost(f"no hello from the runner: {error}") from error
        raise
    return AttachedRunner(link, frame.hello.runner)
