"""The workload that carries out runs, one controller per run under the run's lease; see `ground.control`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError
from codealign.common.logs import get_logger
from codealign.coordinator.ground.assignment import Assignment, Outcome, PauseWanted
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import LeaseLost
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs import runner
from codealign.coordinator.runs.breaker import BreakerOpened
from codealign.coordinator.runs.progress import measured_progress
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)
WORK_LOG_SECONDS = 60.0
"""Seconds between WorkLog records, and the most busy time that is lost when a coordinator is killed."""
LAST_WORK_LOG_SECONDS = 5.0
"""Timeout in seconds for the record at the end of the work, so that it cannot block the work."""


class RunWorkload:
    """The workload for runs; implements `control.Workload`.

    Args:
        settings: The coordinator's settings.
        services: All services except training are used.
        benchmarks: Texts that must not occur in a seed or a row.
    """

    kind = pb.KIND_RUN
    prefix = "run"
    repeatable = False

    def __init__(self, settings: CoordinatorSettings, services: Services, benchmarks: BenchmarkTexts) -> None:
        self._settings, self._services, self._benchmarks = settings, services, benchmarks
        self._number = itertools.count()
        self.live: dict[str, Progress] = {}
        """Progress of the runs that this coordinator is working on, by run id."""

    async def work(self, assignment: Assignment) -> Outcome:
        """Carry out the run, or resume it; see `control.Workload.work`."""
        run = assignment.subject
        progress = self.live[run.id] = measured_progress(run.run)
        try:
            async with self._logged(assignment, progress):
                outcome = await runner.work(
                    run,
                    self._services,
                    assignment.store,
                    self._benchmarks,
                    self._settings,
                    progress,
                    assignment.gate,
                    assignment.say,
                )
        except BreakerOpened as opened:
            raise PauseWanted(str(opened)) from opened
        finally:
            self.live.pop(run.id, None)
        return Outcome(outcome.message, outcome.version)

    @contextlib.asynccontextmanager
    async def _logged(self, assignment: Assignment, progress: Progress) -> AsyncIterator[None]:
        """Record the stages' busy seconds inside this context, every minute and at the end."""
        told: dict[str, float] = {}
        told_inference = 0.0

        async def append() -> None:
            nonlocal told_inference
            busy, inference = progress.busy_seconds(), progress.inference.busy_seconds
            since = {stage: seconds - told.get(stage, 0.0) for stage, seconds in busy.items()}
            body = pb.WorkLog(
                busy_seconds={stage: seconds for stage, seconds in since.items() if seconds > 0},
                inference_seconds=max(0.0, inference - told_inference),
            )
            if body.busy_seconds:
                told.update(busy)
                told_inference = inference
                key = f"{assignment.lease.token.token}/{next(self._number)}"
                parents = [assignment.subject.id]
                await assignment.store.append(pb.Record(kind=pb.KIND_WORK_LOG, parents=parents, key=key, work_log=body))

        async def append_for_ever() -> None:
            while True:
                await asyncio.sleep(WORK_LOG_SECONDS)
                try:
                    await append()
                except (CodeAlignError, RunFailed) as error:
                    log.warning("work_log_failed", run_id=assignment.subject.id, message=str(error))

        logging = asyncio.create_task(append_for_ever())
        try:
            yield
        finally:
            logging.cancel()
            await asyncio.wait([logging])
            if not logging.cancelled():
                logging.exception()  # retrieve it: the lease was lost, which the work notices by itself
            with contextlib.suppress(CodeAlignError, RunFailed, LeaseLost, TimeoutError):
                async with asyncio.timeout(LAST_WORK_LOG_SECONDS):
                    await append()
