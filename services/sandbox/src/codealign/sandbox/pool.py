"""Keeps the runners: starts them, starts them again when they end, and knows when none is to be trusted."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.errors import CodeAlignError, FailedPrecondition, Unavailable
from codealign.common.logs import get_logger
from codealign.sandbox import metrics
from codealign.sandbox.dispatch import Dispatcher
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_LONGEST_PATIENT_PAUSE = 5.0
"""Knocking costs less than starting, and whoever does not answer yet may do so any moment."""
_STABLE_SECONDS = 5.0
"""A runner that lived so long, its start included, was able to work: its end is no reason to wait with the next."""

log = get_logger(__name__)


class Backend(Protocol):
    """A way to a runner at one place."""

    async def start(self) -> AttachedRunner:
        """Starts or reaches one and waits for its hello.

        Raises:
            RunnerLost: It did not come up.
        """
        ...


@dataclasses.dataclass(slots=True)
class _Place:
    task: asyncio.Task[None] | None = None
    runner: AttachedRunner | None = None
    refused: pb.Runner | None = None
    """The last runner here, where its isolation was not proved."""
    fault: CodeAlignError | None = None
    """Why there is no runner. None also while the first one is on its way, or the next one after one that worked."""


def missing_walls(runner: pb.Runner) -> str:
    """The walls that do not hold and what was seen of each; empty when all hold."""
    return "; ".join(f"{wall.name}: {wall.evidence}" for wall in runner.walls if not wall.holds)


def objection(runner: pb.Runner, isolation: pb.Isolation.ValueType) -> str:
    """Why a runner must not be given work; empty when it may.

    Args:
        runner: What its hello says.
        isolation: What is asked for. Something weaker is never taken in its place.
    """
    if isolation == pb.ISOLATION_GVISOR:
        missing = missing_walls(runner)
        if missing or not runner.walls:
            return missing or "no wall was tried"
        if runner.isolation != isolation:
            return f"it says of itself {pb.Isolation.Name(runner.isolation)}"
    return "" if runner.state == pb.RUNNER_STATE_READY else f"it is {pb.RunnerState.Name(runner.state)}"


class Pool:
    """Places for runners, each kept occupied by a task."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        changed: Callable[[str], Awaitable[None]],
        isolation: pb.Isolation.ValueType = pb.ISOLATION_GVISOR,
        *,
        patient: bool = False,
    ) -> None:
        """Makes a pool without places.

        Args:
            dispatcher: Gives the runners work.
            changed: Called with why no work is taken, or with an empty text when it is.
            isolation: What every runner must have.
            patient: Someone else starts the runners, and may do so at any time: that there is none is no reason to
                refuse work, which waits for one.
        """
        self._dispatcher = dispatcher
        self._changed = changed
        self._isolation = isolation
        self._patient = patient
        self._places: dict[str, _Place] = {}

    def keep(self, name: str, backend: Backend) -> None:
        """Begins to keep a runner at a place; returns at once."""
        place = self._places[name] = _Place()
        place.task = asyncio.create_task(self._keep(name, place, backend))

    async def drop(self, name: str, drain_seconds: float) -> None:
        """Gives a place up: its runner finishes what it has, at most so long, and is left."""
        place = self._places.pop(name)
        runner = place.runner
        if runner is not None:
            await runner.drain(drain_seconds)
        await self._leave(place)
        await self._tell()

    async def start(self) -> None:
        """Says how things stand at the beginning."""
        await self._tell()

    async def stop(self, drain_seconds: float) -> None:
        """Lets the runners finish what they have, at most so long, and ends them."""
        places = list(self._places.values())
        runners = [place.runner for place in places if place.runner is not None]
        await asyncio.gather(*(self._leave(place) for place in places))
        await asyncio.gather(*(runner.drain(drain_seconds) for runner in runners))

    async def _leave(self, place: _Place) -> None:
        if place.task is not None:
            place.task.cancel()
            await asyncio.gather(place.task, return_exceptions=True)

    def check(self) -> None:
        """Does nothing while work is taken.

        Raises:
            FailedPrecondition: Isolation is not proved; names the walls.
            Unavailable: Runners do not start.
        """
        fault = self._fault()
        if fault is not None:
            raise fault

    @property
    def slots(self) -> int:
        """Executions at once, of all runners."""
        return sum(runner.description.slots for runner in self._runners())

    @property
    def places(self) -> set[str]:
        """The names of all places."""
        return set(self._places)

    @property
    def descriptions(self) -> list[pb.Runner]:
        """Every runner that said hello, and those whose isolation is not proved."""
        refused = [place.refused for place in self._places.values() if place.refused is not None]
        return [runner.description for runner in self._runners()] + refused

    def _runners(self) -> list[AttachedRunner]:
        return [place.runner for place in self._places.values() if place.runner is not None]

    def _fault(self) -> CodeAlignError | None:
        """Why no work is taken: every place has a fault, and only the walls count where others start the runners."""
        places = list(self._places.values())
        if not places or any(place.fault is None for place in places):
            return None
        refused = [place.fault for place in places if place.refused is not None]
        if self._patient:
            return refused[0] if len(refused) == len(places) else None
        return refused[0] if refused else places[-1].fault

    async def _tell(self) -> None:
        fault = self._fault()
        if fault is not None:
            await self._changed(fault.message)
            await self._dispatcher.refuse(fault)
        elif self._patient or self._runners():
            await self._changed("")
        else:
            await self._changed("a runner is being started")

    async def _keep(self, name: str, place: _Place, backend: Backend) -> None:
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            try:
                await self._occupy(name, place, backend, pause)
            except Exception:
                # Whatever it is: a place that nobody keeps any more would be lost for good.
                log.exception("place_failed", place=name, next_try_seconds=pause)
            if time.monotonic() - started > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PATIENT_PAUSE if self._patient else _LONGEST_PAUSE)

    async def _occupy(self, name: str, place: _Place, backend: Backend, pause: float) -> None:
        """Starts a runner and uses it until it ends, or says why there is none."""
        try:
            runner = await backend.start()
        except Exception as error:
            metrics.RUNNER_STARTS.labels(outcome="failed").inc()
            known = isinstance(error, (RunnerLost, OSError))
            why = str(error) if known else f"{type(error).__name__}: {error}"
            log.error(
                "runner_did_not_start", place=name, error=why, next_try_seconds=pause, exc_info=None if known else error
            )
            place.refused = None
            place.fault = Unavailable(f"no runner starts: {why}", retry_after=pause)
            await self._tell()
            return
        try:
            await self._use(name, place, runner)
        except Exception as error:
            place.fault = Unavailable(f"no runner works: {type(error).__name__}: {error}", retry_after=pause)
            # It may still be there, and nobody would give it work or end it.
            await asyncio.gather(runner.close(), return_exceptions=True)
            raise

    async def _use(self, name: str, place: _Place, runner: AttachedRunner) -> None:
        """Until it ends."""
        description = runner.description
        reason = objection(description, self._isolation)
        if reason:
            metrics.RUNNER_STARTS.labels(outcome="refused").inc()
            log.error("isolation_not_proved", runner=description.name, place=name, reason=reason)
            place.refused = description
            place.fault = FailedPrecondition(
                f"isolation is not proved, so nothing is executed: runner {description.name}: {reason}"
            )
            await runner.close()
            await self._tell()
            return
        self._greet(description)
        place.refused, place.fault = None, None
        place.runner = runner
        try:
            metrics.SLOTS.set(self.slots)
            await self._tell()
            await self._dispatcher.serve(runner, place=name)
        finally:
            place.runner = None
            metrics.SLOTS.set(self.slots)
        # Only here when it ended by itself: at a stop the task is cancelled, and the runner is drained.
        log.warning("runner_ended", runner=description.name)
        await self._tell()

    def _greet(self, runner: pb.Runner) -> None:
        metrics.RUNNER_STARTS.labels(outcome="ready").inc()
        seen = {"runner": runner.name, "platform": runner.platform, "slots": runner.slots, "walls": len(runner.walls)}
        log.info("runner_ready", **seen)
        if runner.isolation != pb.ISOLATION_GVISOR:
            log.warning("runner_without_isolation", runner=runner.name, missing=missing_walls(runner))
