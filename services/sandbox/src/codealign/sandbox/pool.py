"""Keeps runners alive: starts them, restarts them when they end, and refuses work if none can be trusted."""

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
"""Longest pause where others start the runners. Polling is cheap, and a runner may become ready at any moment."""
_STABLE_SECONDS = 5.0
"""A runner that lived this long, including its start, was able to work, so the next one is started without a pause."""

log = get_logger(__name__)


class Backend(Protocol):
    """Starts or reaches a runner at one place."""

    async def start(self) -> AttachedRunner:
        """Start or reach a runner and wait for its hello.

        Raises:
            RunnerLost: It did not start or cannot be reached.
        """
        ...


@dataclasses.dataclass(slots=True)
class _Place:
    task: asyncio.Task[None] | None = None
    runner: AttachedRunner | None = None
    refused: pb.Runner | None = None
    """The last runner here, if its isolation was not verified."""
    fault: CodeAlignError | None = None
    """Why there is no runner. None also while the first runner starts, or while one that worked is being replaced."""


def failed_checks(runner: pb.Runner) -> str:
    """Return the failed isolation checks with their evidence, or "" if all passed."""
    return "; ".join(f"{check.name}: {check.evidence}" for check in runner.isolation_checks if not check.passed)


def objection(runner: pb.Runner, isolation: pb.Isolation.ValueType) -> str:
    """Return why a runner must not be given work, or "" if it may.

    Args:
        runner: The description in its hello.
        isolation: The required isolation. A weaker one is never accepted instead.
    """
    if isolation == pb.ISOLATION_GVISOR:
        missing = failed_checks(runner)
        if missing or not runner.isolation_checks:
            return missing or "no isolation check was run"
        if runner.isolation != isolation:
            return f"its isolation is {pb.Isolation.Name(runner.isolation)}"
    return "" if runner.state == pb.RUNNER_STATE_READY else f"its state is {pb.RunnerState.Name(runner.state)}"


class Pool:
    """A set of places, each kept occupied by a runner. A new pool has none.

    Args:
        dispatcher: Gives work to the runners.
        changed: Called with the reason why no work is accepted, or with "" when it is.
        isolation: Isolation required of every runner.
        patient: Others start the runners and may do so at any time. Having none is then no reason to refuse work;
            it waits for a runner.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        changed: Callable[[str], Awaitable[None]],
        isolation: pb.Isolation.ValueType = pb.ISOLATION_GVISOR,
        *,
        patient: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._changed = changed
        self._isolation = isolation
        self._patient = patient
        self._places: dict[str, _Place] = {}

    def keep(self, name: str, backend: Backend) -> None:
        """Start keeping a runner at a place. Returns immediately."""
        place = self._places[name] = _Place()
        place.task = asyncio.create_task(self._keep(name, place, backend))

    async def drop(self, name: str, drain_seconds: float) -> None:
        """Give up a place. Its runner may finish its jobs for at most `drain_seconds` and is then released."""
        place = self._places.pop(name)
        runner = place.runner
        if runner is not None:
            await runner.drain(drain_seconds)
        await self._leave(place)
        await self._tell()

    async def start(self) -> None:
        """Report the initial state."""
        await self._tell()

    async def stop(self, drain_seconds: float) -> None:
        """Let the runners finish their jobs for at most `drain_seconds`, then end them."""
        places = list(self._places.values())
        runners = [place.runner for place in places if place.runner is not None]
        await asyncio.gather(*(self._leave(place) for place in places))
        await asyncio.gather(*(runner.drain(drain_seconds) for runner in runners))

    async def _leave(self, place: _Place) -> None:
        if place.task is not None:
            place.task.cancel()
            await asyncio.gather(place.task, return_exceptions=True)

    def check(self) -> None:
        """Check that work is accepted.

        Raises:
            FailedPrecondition: Isolation is not verified; the message names the failed checks.
            Unavailable: Runners do not start.
        """
        fault = self._fault()
        if fault is not None:
            raise fault

    @property
    def slots(self) -> int:
        """Concurrent executions of all runners."""
        return sum(runner.description.slots for runner in self._runners())

    @property
    def places(self) -> set[str]:
        """Names of all places."""
        return set(self._places)

    @property
    def descriptions(self) -> list[pb.Runner]:
        """Descriptions of every runner that sent a hello, including those with unverified isolation."""
        refused = [place.refused for place in self._places.values() if place.refused is not None]
        return [runner.description for runner in self._runners()] + refused

    def _runners(self) -> list[AttachedRunner]:
        return [place.runner for place in self._places.values() if place.runner is not None]

    def _fault(self) -> CodeAlignError | None:
        """Return why no work is accepted: all places have faults. If others start runners, only isolation counts."""
        places = list(self._places.values())
        if not places or any(place.fault is None for place in places):
            return None
        refused = [place.fault for place in places if place.refused is not None]
        if self._patient:
            return refused[0] if len(refused) == len(places) else None
        return refused[0] if refused else places[-1].fault

    async def _tell(self) -> None:
        metrics.RUNNERS.labels("ready").set(len(self._runners()))
        metrics.RUNNERS.labels("refused").set(sum(place.refused is not None for place in self._places.values()))
        fault = self._fault()
        if fault is not None:
            await self._changed(fault.message)
            await self._dispatcher.refuse(fault)
        elif self._patient or self._runners():
            await self._changed("")
        else:
            await self._changed("a runner is starting")

    async def _keep(self, name: str, place: _Place, backend: Backend) -> None:
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            try:
                await self._occupy(name, place, backend, pause)
            except Exception:
                # Catch everything: a place whose task has ended would be lost for good.
                log.exception("place_failed", place=name, next_try_seconds=pause)
            if time.monotonic() - started > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PATIENT_PAUSE if self._patient else _LONGEST_PAUSE)

    async def _occupy(self, name: str, place: _Place, backend: Backend, pause: float) -> None:
        """Start a runner and use it until it ends, or record why there is none."""
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
            place.fault = Unavailable(f"runners do not start: {why}", retry_after=pause)
            await self._tell()
            return
        try:
            await self._use(name, place, runner)
        except Exception as error:
            place.fault = Unavailable(f"runners do not work: {type(error).__name__}: {error}", retry_after=pause)
            # The runner may still exist, and nobody else would use it or end it.
            await asyncio.gather(runner.close(), return_exceptions=True)
            raise

    async def _use(self, name: str, place: _Place, runner: AttachedRunner) -> None:
        """Use a runner until it ends."""
        description = runner.description
        reason = objection(description, self._isolation)
        if reason:
            metrics.RUNNER_STARTS.labels(outcome="refused").inc()
            log.error("isolation_not_proved", runner=description.name, place=name, reason=reason)
            place.refused = description
            place.fault = FailedPrecondition(
                f"isolation is not verified, so nothing is executed: runner {description.name}: {reason}"
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
        # Reached only if the runner ended by itself. A stop cancels this task and drains the runner.
        log.warning("runner_ended", runner=description.name)
        await self._tell()

    def _greet(self, runner: pb.Runner) -> None:
        metrics.RUNNER_STARTS.labels(outcome="ready").inc()
        seen = {
            "runner": runner.name,
            "platform": runner.platform,
            "slots": runner.slots,
            "isolation_checks": len(runner.isolation_checks),
        }
        log.info("runner_ready", **seen)
        if runner.isolation != pb.ISOLATION_GVISOR:
            log.warning("runner_without_isolation", runner=runner.name, missing=failed_checks(runner))
