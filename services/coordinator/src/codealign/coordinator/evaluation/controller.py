"""Controller of evaluations: one per job, held by the job's lease; see `ground.control`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import Unavailable
from codealign.common.logs import get_logger
from codealign.coordinator.evaluation import benchmarks, models
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import Benchmark
from codealign.coordinator.evaluation.request import Asked, checked
from codealign.coordinator.evaluation.runners import RunnerIdentity, current
from codealign.coordinator.evaluation.sheets import Sheet, new_sheets
from codealign.coordinator.evaluation.work import COLLECTION, Limits, Work
from codealign.coordinator.ground.assignment import Assignment, Outcome
from codealign.coordinator.ground.faults import Refused, RunFailed
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.waiting import Waiting
from codealign.coordinator.ground.windows import Window
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)


@dataclass
class Live:
    """An evaluation in progress on this coordinator."""

    sheets: Sequence[Sheet]
    runners: RunnerIdentity
    """Runners that the results depend on."""
    waiting: Waiting
    tally: StageTally


class EvaluationWorkload:
    """Execution of EvaluationJobs; implements `control.Workload`.

    Args:
        settings: Coordinator settings.
        services: Clients of the other services; training is not used.
    """

    kind = pb.KIND_EVALUATION_JOB
    prefix = "evaluation"
    repeatable = True
    """Samples that were not judged because of infrastructure faults are retried."""

    def __init__(self, settings: CoordinatorSettings, services: Services) -> None:
        self._settings, self._services = settings, services
        self._known = KnownResults()
        self._limits = Limits.of(settings, services)
        self.live: dict[str, Live] = {}
        """Evaluations in progress on this coordinator, by job id."""

    async def work(self, assignment: Assignment) -> Outcome:
        """Generate and judge the missing samples; see `control.Workload.work`.

        Fails if a benchmark cannot be loaded or the model is not loaded. Waits for unavailable services, including the
        hub. If the sandbox's runners have changed, stops and starts again with the new ones.
        """
        job = assignment.subject
        asked = checked(job.evaluation_job.settings)
        loaded = await self._load(asked)
        listed = await self._services.inference.list_models(inf.ListModelsRequest())
        model = models.chosen(asked.model, listed.models, asked.style)
        runners = await current(self._services.sandbox)
        sheets = await new_sheets(asked, loaded, runners)
        async with RunStore(self._services.dataset, COLLECTION, assignment.lease, assignment.waiting) as store:
            work = Work(self._services, self._limits, self._known, store, asked, model, assignment, runners)
            self.live[job.id] = Live(sheets, runners, assignment.waiting, work.tally)
            try:
                await work.prepare(sheets)
                for sheet in sheets:
                    log.info("evaluation_started", evaluation_id=sheet.board.config.id, reused=sheet.board.reused)
                await work.run()
            except* Refused as refused:
                raise RunFailed(_said(refused)) from refused
            finally:
                self.live.pop(job.id, None)
        return Outcome(_summary(sheets, work.broken))

    @property
    def windows(self) -> Mapping[str, Window]:
        """Windows that all evaluations share, by service."""
        return {"inference": self._limits.generations, "sandbox": self._limits.executions}

    async def _load(self, asked: Asked) -> list[Benchmark]:
        """Load the benchmarks again; they were available when the evaluation was requested.

        Raises:
            Unavailable: The hub is temporarily unreachable.
        """
        folder = self._settings.evaluation_data
        try:
            return [await asyncio.to_thread(benchmarks.load, name, folder) for name in asked.benchmarks]
        except benchmarks.NotReached as error:
            raise Unavailable(error.message) from error


def _said(error: BaseException) -> str:
    """Return the message of the first refusal, with the request's field if known."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    field = error.field if isinstance(error, Refused) else ""
    field = "prompt_style" if field.startswith("chat") else field
    return f"{field}: {error}" if field and field not in str(error) else str(error)


def _summary(sheets: Sequence[Sheet], broken: Mapping[str, str]) -> str:
    parts = [f"{sheet.board.settings['benchmark']}: {len(sheet.problems)} problems" for sheet in sheets]
    parts += list(dict.fromkeys(broken.values()))
    undecided = sum(
        len(sheet.missing(problem))
        for sheet in sheets
        for problem in sheet.problems
        if problem.problem_id not in broken
    )
    if undecided:
        parts.append(
            f"{undecided} samples undecided because of infrastructure faults: repeat the call to judge them again"
        )
    return "; ".join(parts)
