"""A runner at the other end of a stream of frames: the same for every way of reaching one."""

from __future__ import annotations

import asyncio
import itertools
from typing import Protocol

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.logs import get_logger
from codealign.runner.profiles import PROFILES, TIME_FACTOR

_CANCEL_SECONDS = 30.0
"""A job that nobody waits for is stopped within this."""
_RETIRE_SECONDS = 60.0
_STREAM_SECONDS = 2.0
_GROWTH_BYTES = 512 * 1024 * 1024
_TELL_SECONDS = 0.25

log = get_logger(__name__)


class RunnerLost(Exception):
    """The runner ended, or its stream did: what it was doing is unknown."""


class RunnerDrained(RunnerLost):
    """It is being stopped by its own side and gave the job back: nobody's fault."""


class Link(Protocol):
    """Carries frames to one runner and back."""

    patience_seconds: float
    """How much longer than its limits allow a job may take before the runner is taken for hung."""

    async def send(self, frame: runner_pb2.AttachRequest) -> None:
        """Sends a frame.

        Raises:
            RunnerLost: The stream is broken.
        """
        ...

    async def receive(self) -> runner_pb2.AttachResponse:
        """The next frame.

        Raises:
            RunnerLost: The stream ended; the message says how.
        """
        ...

    @property
    def resident_bytes(self) -> int:
        """Memory of the runner, seen from outside; 0 where that is not known."""
        ...

    async def cpu_seconds(self) -> float | None:
        """Processor time that the runner has had since its start, seen from outside; None where that is not known."""
        ...

    async def close(self) -> None:
        """Ends the stream, and the runner where it is ours; returns when it is gone. May be called again."""
        ...


class AttachedRunner:
    """One runner and the jobs that it has.

    Attributes:
        description: What its last hello said.
    """

    def __init__(self, link: Link, description: pb.Runner) -> None:
        """Use `attach`."""
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
        """Whether it can take a job."""
        return not (self._ended.is_set() or self._stops or self._drains)

    async def wait_ended(self) -> None:
        """Until the runner is gone."""
        await self._ended.wait()

    async def execute(self, request: pb.ExecuteRequest) -> pb.Result:
        """Runs one job; the caller keeps to the number of slots.

        When the caller is cancelled the runner is told, and the call ends when the slot is free again.

        Raises:
            RunnerLost: It ended before the outcome, or hangs.
        """
        if not self.is_alive:
            raise self._lost("takes no job any more")
        number = next(self._ids)
        outcome: asyncio.Future[pb.Result] = asyncio.get_running_loop().create_future()
        self._waiting[number] = outcome
        try:
            await self._link.send(runner_pb2.AttachRequest(job=runner_pb2.Job(id=number, request=request)))
            # What it waits for a processor does not count; see `TIME_FACTOR`.
            seconds = TIME_FACTOR * request.limits.wall_seconds * max(request.runs, 1) + self._link.patience_seconds
            return await self._within(outcome, seconds)
        except asyncio.CancelledError:
            await self._abandon(number, outcome)
            raise
        except RunnerLost:
            raise
        except Exception as error:
            log.exception("runner_failed", runner=self.description.name)
            await asyncio.gather(self.close(), return_exceptions=True)
            raise self._lost(f"failed ({type(error).__name__}: {error})") from error
        finally:
            self._waiting.pop(number, None)

    async def _tell_processor_time(self) -> None:
        """While a job takes long, the runner is told what the machine gives it."""
        told = 0
        try:
            while True:
                await asyncio.sleep(_TELL_SECONDS)
                # A job that was there the last time: most are through before that, and a look costs milliseconds.
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
            # Its limits then count every second; nothing else depends on this.
            log.exception("processor_time_not_told", runner=self.description.name)

    async def _within(self, outcome: asyncio.Future[pb.Result], seconds: float) -> pb.Result:
        done, _ = await asyncio.wait((outcome,), timeout=seconds)
        if not done:
            log.error("runner_hangs", runner=self.description.name, seconds=seconds)
            # Its end answers everyone who waits for it, this call too.
            await self.close()
        return await outcome

    async def _abandon(self, number: int, outcome: asyncio.Future[pb.Result]) -> None:
        try:
            await self._link.send(runner_pb2.AttachRequest(cancel=runner_pb2.Cancel(id=number)))
            await self._within(outcome, _CANCEL_SECONDS)
        except RunnerLost:
            return

    def _retire_if_grown(self) -> None:
        """What the runner's own kernel holds for nobody (gVisor collects no cycles of sockets) goes with the runner."""
        resident = self._link.resident_bytes
        if not resident:
            return  # It is not seen from here.
        self._idle_bytes = self._idle_bytes or resident
        profile = PROFILES[self.description.profiles[0]]
        each = profile.defaults.memory_bytes + profile.defaults.disk_bytes
        if self.is_alive and resident > self._idle_bytes + self.description.slots * each + _GROWTH_BYTES:
            log.warning("runner_has_grown", runner=self.description.name, resident_bytes=resident)
            self._retirement = asyncio.create_task(self.drain(_RETIRE_SECONDS))

    async def drain(self, seconds: float) -> None:
        """Gives it no further job, lets it finish what it has, at most so long, and ends it."""
        self._stops = True
        if not self._ended.is_set():
            try:
                await self._link.send(runner_pb2.AttachRequest(drain=runner_pb2.Drain()))
                await asyncio.wait_for(self._ended.wait(), seconds)
            except (RunnerLost, TimeoutError):
                pass
        await self.close()

    async def close(self) -> None:
        """Ends it now."""
        await self._link.close()
        # Its stream has ended with it, unless somebody else still holds the other end.
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
            # A frame that is none, or an error of ours: nothing that comes after it can be relied on.
            log.exception("runner_not_understood", runner=self.description.name)
            how = f"sent what is not understood ({type(error).__name__}: {error})"
        finally:
            self._ended.set()
            self._teller.cancel()
            for outcome in self._waiting.values():
                if not outcome.done():
                    outcome.set_exception(self._lost(how))
                    outcome.exception()  # Taken note of, should nobody wait any more.
            await self._link.close()


async def attach(link: Link, seconds: float) -> AttachedRunner:
    """Waits for a runner's hello.

    Args:
        link: To a runner that has said nothing yet. Closed where this fails.
        seconds: How long the hello may take.

    Raises:
        RunnerLost: The stream ended without one, or it took too long.
    """
    try:
        frame = await asyncio.wait_for(link.receive(), seconds)
    except TimeoutError:
        await link.close()
        raise RunnerLost(f"the runner did not say hello within {seconds:g} s") from None
    except BaseException as error:
        await link.close()
        if isinstance(error, RunnerLost):
            raise RunnerLost(f"the runner did not say hello: {error}") from error
        raise
    return AttachedRunner(link, frame.hello.runner)
