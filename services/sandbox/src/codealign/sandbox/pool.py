"""Keeps the runners: starts them, starts them again when they end, and knows when none is to be trusted."""

import asyncio
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
_STABLE_SECONDS = 60.0
"""A runner that lived so long is no sign of trouble when it ends."""

log = get_logger(__name__)


class Backend(Protocol):
    """A way of starting runners."""

    async def start(self) -> AttachedRunner:
        """Starts one and waits for its hello.

        Raises:
            RunnerLost: It did not come up.
        """
        ...


def missing_walls(runner: pb.Runner) -> str:
    """The walls that do not hold and what was seen of each; empty when all hold."""
    return "; ".join(f"{wall.name}: {wall.evidence}" for wall in runner.walls if not wall.holds)


class Pool:
    """A fixed number of runners, each kept alive by a task."""

    def __init__(
        self, backend: Backend, count: int, dispatcher: Dispatcher, changed: Callable[[str], Awaitable[None]]
    ) -> None:
        """Makes a pool; `start` starts it.

        Args:
            backend: Starts runners.
            count: How many to keep.
            dispatcher: Gives them work.
            changed: Called with why there is no runner, or with an empty text when there is one.
        """
        self._backend = backend
        self._count = count
        self._dispatcher = dispatcher
        self._changed = changed
        self._runners: dict[int, AttachedRunner] = {}
        self._refused: dict[int, pb.Runner] = {}
        self._fault: CodeAlignError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to start runners; returns at once."""
        self._tasks = [asyncio.create_task(self._keep(index)) for index in range(self._count)]

    async def stop(self, drain_seconds: float) -> None:
        """Lets the runners finish what they have, at most so long, and ends them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(runner.drain(drain_seconds) for runner in self._runners.values()))

    def check(self) -> None:
        """Does nothing while there is a runner, or one may soon be there.

        Raises:
            FailedPrecondition: Isolation is not proved; names the walls.
            Unavailable: Runners do not start.
        """
        if not self._runners and self._fault is not None:
            raise self._fault

    @property
    def slots(self) -> int:
        """Executions at once, of all runners."""
        return sum(runner.description.slots for runner in self._runners.values())

    @property
    def descriptions(self) -> list[pb.Runner]:
        """Every runner that said hello, and those whose isolation is not proved."""
        working = [runner.description for runner in self._runners.values()]
        return working + [runner for index, runner in self._refused.items() if index not in self._runners]

    async def _keep(self, index: int) -> None:
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            try:
                runner = await self._backend.start()
            except RunnerLost as error:
                metrics.RUNNER_STARTS.labels(outcome="failed").inc()
                log.error("runner_did_not_start", error=str(error), next_try_seconds=pause)
                await self._none(Unavailable(f"no runner starts: {error}", retry_after=pause))
            else:
                await self._use(index, runner)
            if time.monotonic() - started > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _use(self, index: int, runner: AttachedRunner) -> None:
        """Until it ends."""
        description = runner.description
        missing = missing_walls(description)
        if description.state != pb.RUNNER_STATE_READY or missing:
            metrics.RUNNER_STARTS.labels(outcome="refused").inc()
            log.error("isolation_not_proved", runner=description.name, walls=missing)
            self._refused[index] = description
            await runner.close()
            await self._none(FailedPrecondition(f"isolation is not proved, so nothing is executed: {missing}"))
            return
        metrics.RUNNER_STARTS.labels(outcome="ready").inc()
        log.info("runner_ready", runner=description.name, platform=description.platform, slots=description.slots)
        self._refused.pop(index, None)
        self._runners[index] = runner
        metrics.SLOTS.set(self.slots)
        await self._changed("")
        await self._dispatcher.serve(runner)
        # Only here when it ended by itself: at a stop the task is cancelled, and the runner stays to be drained.
        del self._runners[index]
        metrics.SLOTS.set(self.slots)
        log.warning("runner_ended", runner=description.name)
        if not self._runners:
            await self._changed("the runner ended, and is being started again")

    async def _none(self, fault: CodeAlignError) -> None:
        self._fault = fault
        if not self._runners:
            await self._changed(fault.message)
            await self._dispatcher.refuse(fault)
