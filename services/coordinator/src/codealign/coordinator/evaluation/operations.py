"""Evaluations as callers see them: asked for, watched, listed, cancelled.

A call records what is wanted and returns, or watches; a controller (`controller`) carries it out, in this coordinator
or in another one. What is told of an evaluation comes from the controller where it is this coordinator's, else from the
store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import CodeAlignError, FailedPrecondition, InvalidArgument, NotFound
from codealign.common.logs import get_logger
from codealign.coordinator.evaluation import benchmarks, models
from codealign.coordinator.evaluation.controller import EvaluationWorkload
from codealign.coordinator.evaluation.problems import Benchmark
from codealign.coordinator.evaluation.request import Asked, checked, job_record
from codealign.coordinator.evaluation.runners import current
from codealign.coordinator.evaluation.sheets import Sheet, StoredSheets
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.faults import TRANSIENT
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)
PROGRESS_SECONDS = 0.5
"""Between two looks at an evaluation of this coordinator."""
ELSEWHERE_SECONDS = 2.0
"""And at one of another coordinator, where each look reads what is new in the store."""
MIN_PREFIX = 6
_ID_DIGITS, _DIGITS = 32, frozenset("0123456789abcdef")
JOBS = "evaluation-jobs"
"""EvaluationJob records are members of this collection."""


class Evaluations:
    """All evaluations of the store.

    Args:
        settings: The coordinator's.
        services: All but training are used.
        workload: What this coordinator works on.
        poke: Told of every request.
    """

    def __init__(
        self, settings: CoordinatorSettings, services: Services, workload: EvaluationWorkload, poke: requests.Poke
    ) -> None:
        self._settings, self._services, self._workload, self._poke = settings, services, workload, poke

    async def evaluate(self, request: api.EvaluateRequest) -> AsyncGenerator[api.EvaluateResponse]:
        """Have a model evaluated, and watch it: progress, and each benchmark's result when it is through.

        Closing the generator stops the watching alone.

        Raises:
            InvalidArgument: Names every field that is wrong.
            FailedPrecondition: A benchmark's file is damaged; the evaluation failed, or somebody stopped it.
            NotFound: A benchmark's problems cannot be had, or no such model is loaded.
            Unavailable: The store or inference is away, or the sandbox where the evaluation is finished.
        """
        asked = await self._checked(request.settings)
        loaded = await self.load(asked)
        if request.validate_only:
            for benchmark in loaded:
                total = len(benchmark.spread(asked.limit))
                yield api.EvaluateResponse(benchmark=benchmark.name, problems_total=total)
            return
        asked = await self._complete(asked)
        job = job_record(asked)
        stored = StoredSheets(asked, loaded, self._services)
        standing = await self.standing(job.id)
        if standing.state == pb.RUN_STATE_SUCCEEDED and standing.settled(repeatable=True):
            await stored.read()
            for sheet in stored.sheets:
                sheet.board.reused = len(sheet.board.done())
        else:
            with contextlib.suppress(*TRANSIENT):  # else the controller waits for the sandbox
                await current(self._services.sandbox)
        if not stored.complete:
            await self.start(job, "asked for")
        async for message in self._watch(job, asked, loaded, stored):
            yield message

    async def _checked(self, settings: pb.EvaluationSettings) -> Asked:
        """Return the settings in the domain's terms.

        Raises:
            InvalidArgument: Names every field that is wrong. Where one is, the model is looked at as well.
        """
        try:
            return checked(settings)
        except InvalidArgument as error:
            wrong = list(error.violations)
        try:
            listed = await self._services.inference.list_models(inf.ListModelsRequest())
            models.chosen(settings.model, listed.models, settings.prompt_style)
        except InvalidArgument as error:
            wrong += error.violations
        except CodeAlignError as error:  # an error of another kind is told once the fields are right
            log.info("model_not_checked", message=error.message)
        raise InvalidArgument(violations=wrong)

    async def is_whole(self, settings: pb.EvaluationSettings) -> bool:
        """Return whether every sample of a finished evaluation is judged, by the runners that are there now.

        Where its benchmarks cannot be had any more, what is there counts.

        Args:
            settings: With the model's name and revision.

        Raises:
            Unavailable: The store or the sandbox is away.
        """
        asked = checked(settings)
        try:
            stored = StoredSheets(asked, await self.load(asked), self._services)
        except (NotFound, FailedPrecondition):
            return True
        await stored.read()
        return stored.complete

    async def load(self, asked: Asked) -> list[Benchmark]:
        """The benchmarks that are asked for.

        Raises:
            NotFound: The problems of one are nowhere.
            FailedPrecondition: They cannot be read.
        """
        folder = self._settings.evaluation_data
        return [await asyncio.to_thread(benchmarks.load, name, folder) for name in asked.benchmarks]

    async def start(self, job: pb.Record, reason: str) -> None:
        """Record that an evaluation is wanted, unless it is under way.

        Args:
            job: As `job_record` gives it.
            reason: For a person.

        Raises:
            FailedPrecondition: This coordinator carries nothing out.
        """
        self._must_work()
        async with RunStore(self._services.dataset, JOBS) as store:
            await store.append(job)
        await self.want(job.id, pb.RUN_STATE_RUNNING, reason)

    async def want(self, job_id: str, wanted: pb.RunState.ValueType, reason: str) -> None:
        """Record what is wanted of an evaluation.

        Args:
            job_id: Of the EvaluationJob, which is in the store.
            wanted: RUNNING, PAUSED or CANCELLED.
            reason: For a person.

        Raises:
            FailedPrecondition: It has ended: there is nothing to pause or to cancel.
        """
        self._must_work()
        request = await requests.want(self._services.dataset, job_id, wanted, reason, repeatable=True)
        if request is not None:
            self._poke(job_id, request.attempt)

    def _must_work(self) -> None:
        if self._settings.reads_only:
            raise FailedPrecondition(
                "this coordinator takes no evaluations up: CODEALIGN_COORDINATOR_READS_ONLY is set"
            )

    async def standing(self, job_id: str) -> Standing:
        """What is wanted of an evaluation, and what is the case."""
        return await requests.standing(self._services.dataset, job_id)

    def progress(self, job_id: str) -> tuple[int, int]:
        """Problems that are done, and all of them; (0, 0) where another coordinator works on it, or nobody."""
        live = self._workload.live.get(job_id)
        boards = [sheet.board for sheet in live.sheets] if live else []
        return sum(len(board.done()) for board in boards), sum(len(board.problem_ids) for board in boards)

    async def cancel(self, evaluation: str) -> api.EvaluationStatus:
        """Stop an evaluation; what is judged is kept.

        Args:
            evaluation: The job's id, or its first digits.

        Raises:
            NotFound: There is no such evaluation.
            FailedPrecondition: It has ended.
        """
        job = await self._find(evaluation)
        await self.want(job.id, pb.RUN_STATE_CANCELLED, "cancelled; what is judged is kept")
        return self._status(job, await self.standing(job.id))

    async def list(self) -> list[api.EvaluationStatus]:
        """Every evaluation that was asked for, newest first."""
        jobs = await requests.scan(self._services.dataset, ds.ScanRequest(kind=pb.KIND_EVALUATION_JOB))
        standings = await requests.standings(self._services.dataset)
        found = [self._status(job, standings.get(job.id, Standing())) for job in jobs]
        return sorted(found, key=lambda status: status.created_at.ToNanoseconds(), reverse=True)

    def _status(self, job: pb.Record, standing: Standing) -> api.EvaluationStatus:
        settled = standing.settled(repeatable=True)
        live = self._workload.live.get(job.id)
        return api.EvaluationStatus(
            id=job.id,
            settings=job.evaluation_job.settings,
            state=standing.state if settled else pb.RUN_STATE_RUNNING,
            message=standing.message if settled else "",
            wanted=standing.wanted,
            created_at=job.provenance.created_at,
            waiting_for=live.waiting.text if live else "",
        )

    async def _find(self, text: str) -> pb.Record:
        if not MIN_PREFIX <= len(text) <= _ID_DIGITS or not set(text) <= _DIGITS:
            raise InvalidArgument("evaluation", f"give the evaluation's id, or at least its first {MIN_PREFIX} digits")
        found = (await self._services.dataset.get(ds.GetRequest(ids=[text], allow_prefix=True))).records
        if not found or found[0].kind != pb.KIND_EVALUATION_JOB:
            raise NotFound(f"there is no evaluation {text!r}")
        return found[0]

    async def _complete(self, asked: Asked) -> Asked:
        """With the model's name and revision. A job that is there needs no model: it may be done."""
        if asked.model.model and asked.model.revision:
            there = await self._services.dataset.get(ds.GetRequest(ids=[job_record(asked).id]))
            if there.records:
                return asked
        model = await self._model(asked)
        return replace(asked, model=pb.ModelChoice(model=asked.model.model or model.name, revision=model.revision))

    async def _model(self, asked: Asked) -> inf.Model:
        listed = await self._services.inference.list_models(inf.ListModelsRequest())
        return models.chosen(asked.model, listed.models, asked.style)

    async def _watch(
        self, job: pb.Record, asked: Asked, loaded: Sequence[Benchmark], stored: StoredSheets
    ) -> AsyncGenerator[api.EvaluateResponse]:
        """Until it has ended."""
        told: dict[str, api.EvaluateResponse] = {}
        while True:
            live = self._workload.live.get(job.id)
            standing, waits = Standing(), ""
            if live is not None:
                stored.take(live.sheets, live.runners)
                waits = live.waiting.text
            else:
                try:
                    standing = await self.standing(job.id)
                    await stored.read()
                except TRANSIENT as error:
                    waits = error.message
                    if standing.state == pb.RUN_STATE_SUCCEEDED:  # its result cannot be read now
                        standing = Standing()
            ended = standing.request is not None and standing.settled(repeatable=True)
            succeeded = ended and standing.state == pb.RUN_STATE_SUCCEEDED
            messages = [await self._told(sheet, waits, succeeded) for sheet in stored.sheets]
            for message in messages or _not_begun(asked, loaded, waits):
                message.job = job.id
                if told.get(message.benchmark) != message:
                    told[message.benchmark] = message
                    yield message
            if succeeded:
                return
            if ended:
                raise await self._why(job, asked, standing)
            await asyncio.sleep(PROGRESS_SECONDS if live or not told else ELSEWHERE_SECONDS)

    async def _told(self, sheet: Sheet, waits: str, succeeded: bool) -> api.EvaluateResponse:
        board = sheet.board
        message = board.progress()
        if succeeded or message.problems_done == message.problems_total:
            board.undecided = sheet.undecided
            message.evaluation.CopyFrom(await asyncio.to_thread(board.evaluation))
        else:
            message.waiting_for = waits
        return message

    async def _why(self, job: pb.Record, asked: Asked, standing: Standing) -> CodeAlignError:
        """The error that a watcher is told: with the status of its cause, where that is still there."""
        short = job.id[:12]
        if standing.state != pb.RUN_STATE_FAILED:
            state = pb.RunState.Name(standing.state).removeprefix("RUN_STATE_").lower()
            return FailedPrecondition(f"evaluation {short} was {state}: the same call goes on with it")
        try:
            await self.load(asked)
            await self._model(asked)
        except TRANSIENT:
            pass
        except CodeAlignError as error:
            return error
        return FailedPrecondition(standing.message)


def _not_begun(asked: Asked, loaded: Iterable[Benchmark], waits: str) -> list[api.EvaluateResponse]:
    """Return what can be told of an evaluation before it is known which runners its results rest on."""
    return [
        api.EvaluateResponse(
            benchmark=benchmark.name, problems_total=len(benchmark.spread(asked.limit)), waiting_for=waits
        )
        for benchmark in loaded
    ]
