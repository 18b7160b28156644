"""Evaluations are carried out: one controller per job, by the job's lease; see `ground.control`."""

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
from codealign.coordinator.ground.waiting import Waiting
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)


@dataclass
class Live:
    """An evaluation that this coordinator works on."""

    sheets: Sequence[Sheet]
    runners: RunnerIdentity
    """That the results rest on."""
    waiting: Waiting


class EvaluationWorkload:
    """What is done about an EvaluationJob; `control.Workload`.

    Args:
        settings: The coordinator's.
        services: All but training are used.
    """

    kind = pb.KIND_EVALUATION_JOB
    prefix = "evaluation"
    repeatable = True
    """Samples whose judgement fell to the infrastructure are asked again."""

    def __init__(self, settings: CoordinatorSettings, services: Services) -> None:
        self._settings, self._services = settings, services
        self._known = KnownResults()
        self._limits = Limits.of(settings, services)
        self.live: dict[str, Live] = {}
        """By the job's id: what this coordinator works on now."""

    async def work(self, assignment: Assignment) -> Outcome:
        """Generate and judge what is missing; see `control.Workload.work`.

        A benchmark that cannot be had, or a model that is not loaded, ends it with the error that says so. Services
        that are away are waited for, the benchmarks' hub among them. Where the sandbox has other runners by now, the
        work stops, and begins again with those.
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
            self.live[job.id] = Live(sheets, runners, assignment.waiting)
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

    async def _load(self, asked: Asked) -> list[Benchmark]:
        """Return the benchmarks, which could be had when the evaluation was asked for.

        Raises:
            Unavailable: The hub does not answer now.
        """
        folder = self._settings.evaluation_data
        try:
            return [await asyncio.to_thread(benchmarks.load, name, folder) for name in asked.benchmarks]
        except benchmarks.NotReached as error:
            raise Unavailable(error.message) from error


def _said(error: BaseException) -> str:
    """The first refusal; it names the request's field, where that is known."""
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
            f"{undecided} samples undecided, since the infrastructure kept failing: the same call judges them again"
        )
    return "; ".join(parts)
