"""Caller-facing operations on evaluations: start, watch, list, cancel.

A call records the wanted state and returns or watches; a controller (`controller`) in this or another coordinator does
the work. Progress comes from the controller if it runs in this coordinator, else from the store.
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
from codealign.coordinator.evaluation.history import boards_of
from codealign.coordinator.evaluation.problems import Benchmark
from codealign.coordinator.evaluation.request import Asked, checked, job_record
from codealign.coordinator.evaluation.results import Board
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
"""Seconds between polls of an evaluation on this coordinator."""
ELSEWHERE_SECONDS = 2.0
"""Seconds between polls of an evaluation elsewhere; each poll reads new results from the store."""
MIN_PREFIX = 6
_ID_DIGITS, _DIGITS = 32, frozenset("0123456789abcdef")
JOBS = "evaluation-jobs"
"""Collection of the EvaluationJob records."""


class Evaluations:
    """All evaluations in the store.

    Args:
        settings: Coordinator settings.
        services: Clients of the other services; training is not used.
        workload: Evaluations in progress on this coordinator.
        poke: Called after every new request.
    """

    def __init__(
        self, settings: CoordinatorSettings, services: Services, workload: EvaluationWorkload, poke: requests.Poke
    ) -> None:
        self._settings, self._services, self._workload, self._poke = settings, services, workload, poke

    async def evaluate(self, request: api.EvaluateRequest) -> AsyncGenerator[api.EvaluateResponse]:
        """Start an evaluation and yield its progress, and each benchmark's result once it is complete.

        Closing the generator does not stop the evaluation.

        Raises:
            InvalidArgument: Names every invalid field.
            FailedPrecondition: A benchmark's file is damaged, or the evaluation failed or was stopped.
            NotFound: A benchmark's problems cannot be loaded, or no such model is loaded.
            Unavailable: The store or inference is unavailable, or the sandbox if the evaluation is complete.
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
            with contextlib.suppress(*TRANSIENT):  # if it is unavailable, the controller waits
                await current(self._services.sandbox)
        if not stored.complete:
            await self.start(job, "asked for")
        async for message in self._watch(job, asked, loaded, stored):
            yield message

    async def _checked(self, settings: pb.EvaluationSettings) -> Asked:
        """Validate the settings and convert them to a domain object.

        Raises:
            InvalidArgument: Names every invalid field. If there is one, the model is checked too, so that all errors
                are reported at once.
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
        except CodeAlignError as error:  # reported once the fields are valid
            log.info("model_not_checked", message=error.message)
        raise InvalidArgument(violations=wrong)

    async def is_whole(self, settings: pb.EvaluationSettings) -> bool:
        """Return whether the current runners have judged every sample of a finished evaluation.

        Returns True if its benchmarks can no longer be loaded.

        Args:
            settings: Settings with the model's name and revision.

        Raises:
            Unavailable: The store or the sandbox is unavailable.
        """
        asked = checked(settings)
        try:
            stored = StoredSheets(asked, await self.load(asked), self._services)
        except (NotFound, FailedPrecondition):
            return True
        await stored.read()
        return stored.complete

    async def load(self, asked: Asked) -> list[Benchmark]:
        """Load the requested benchmarks.

        Raises:
            NotFound: A benchmark's problems are neither in a file nor on the hub.
            FailedPrecondition: A benchmark's problems cannot be read.
        """
        folder = self._settings.evaluation_data
        return [await asyncio.to_thread(benchmarks.load, name, folder) for name in asked.benchmarks]

    async def start(self, job: pb.Record, reason: str) -> None:
        """Request an evaluation, unless it is already in progress.

        Args:
            job: Job record, from `job_record`.
            reason: Reason to show to users.

        Raises:
            FailedPrecondition: This coordinator is read-only.
        """
        self._settings.must_work()
        async with RunStore(self._services.dataset, JOBS) as store:
            await store.append(job)
        await self.want(job.id, pb.RUN_STATE_RUNNING, reason)

    async def want(self, job_id: str, wanted: pb.RunState.ValueType, reason: str) -> None:
        """Record the wanted state of an evaluation.

        Args:
            job_id: Id of a stored EvaluationJob.
            wanted: RUNNING, PAUSED or CANCELLED.
            reason: Reason to show to users.

        Raises:
            FailedPrecondition: It has ended, so it cannot be paused or cancelled; or this coordinator is read-only.
        """
        self._settings.must_work()
        request = await requests.want(self._services.dataset, job_id, wanted, reason, repeatable=True)
        if request is not None:
            self._poke(job_id, request.attempt)

    async def standing(self, job_id: str) -> Standing:
        """Return the wanted and the actual state of an evaluation."""
        return await requests.standing(self._services.dataset, job_id)

    def progress(self, job_id: str) -> tuple[int, int]:
        """Return the numbers of finished and of all problems; (0, 0) if it is not in progress on this coordinator."""
        live = self._workload.live.get(job_id)
        boards = [sheet.board for sheet in live.sheets] if live else []
        return sum(len(board.done()) for board in boards), sum(len(board.problem_ids) for board in boards)

    async def cancel(self, evaluation: str) -> api.EvaluationStatus:
        """Stop an evaluation, keeping the results so far.

        Args:
            evaluation: Job id, or a prefix of at least `MIN_PREFIX` digits.

        Raises:
            NotFound: There is no such evaluation.
            FailedPrecondition: The evaluation has ended.
        """
        job = await self._find(evaluation)
        await self.want(job.id, pb.RUN_STATE_CANCELLED, "cancelled; results so far are kept")
        return self._status(job, await self.standing(job.id))

    async def list(self) -> list[api.EvaluationStatus]:
        """Return every requested evaluation, newest first."""
        jobs = await requests.scan(self._services.dataset, ds.ScanRequest(kind=pb.KIND_EVALUATION_JOB))
        standings = await requests.standings(self._services.dataset)
        found = [self._status(job, standings.get(job.id, Standing())) for job in jobs]
        return sorted(found, key=lambda status: status.created_at.ToNanoseconds(), reverse=True)

    async def get(self, evaluation: str) -> api.GetEvaluationResponse:
        """Return an evaluation with the stored results of its benchmarks.

        Args:
            evaluation: Job id, or a prefix of at least `MIN_PREFIX` digits.

        Raises:
            NotFound: There is no such evaluation.
        """
        job = await self._find(evaluation)
        settings = job.evaluation_job.settings
        found = api.GetEvaluationResponse(evaluation=self._status(job, await self.standing(job.id)))
        async with RunStore(self._services.dataset, JOBS) as store:
            for board in await boards_of(store, [settings.model.revision]):
                if asked_for(board, settings):
                    found.results.append(await asyncio.to_thread(board.evaluation))
        return found

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
            raise InvalidArgument("evaluation", f"must be an evaluation id or at least its first {MIN_PREFIX} digits")
        found = (await self._services.dataset.get(ds.GetRequest(ids=[text], allow_prefix=True))).records
        if not found or found[0].kind != pb.KIND_EVALUATION_JOB:
            raise NotFound(f"evaluation {text!r} not found")
        return found[0]

    async def _complete(self, asked: Asked) -> Asked:
        """Fill in the model's name and revision. An existing job does not need the model loaded: it may be finished."""
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
        """Yield progress until the evaluation has ended."""
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
                    if standing.state == pb.RUN_STATE_SUCCEEDED:  # its results cannot be read yet
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
        """Return the error for a watcher: the underlying cause if it persists, else the recorded message."""
        short = job.id[:12]
        if standing.state != pb.RUN_STATE_FAILED:
            state = pb.RunState.Name(standing.state).removeprefix("RUN_STATE_").lower()
            return FailedPrecondition(f"evaluation {short} was {state}: repeat the call to continue it")
        try:
            await self.load(asked)
            await self._model(asked)
        except TRANSIENT:
            pass
        except CodeAlignError as error:
            return error
        return FailedPrecondition(standing.message)


def asked_for(board: Board, settings: pb.EvaluationSettings) -> bool:
    """Return whether a board's results were made with these settings."""
    made = board.settings
    return (
        made["benchmark"] in settings.benchmarks
        and made["prompt_style"] == settings.prompt_style
        and made["max_tokens"] == settings.max_tokens
        and made["temperature"] == settings.temperature
        and made["seed"] == (settings.seed if settings.temperature > 0 else 0)
    )


def _not_begun(asked: Asked, loaded: Iterable[Benchmark], waits: str) -> list[api.EvaluateResponse]:
    """Return the progress messages for an evaluation whose runners are not known yet."""
    return [
        api.EvaluateResponse(
            benchmark=benchmark.name, problems_total=len(benchmark.spread(asked.limit)), waiting_for=waits
        )
        for benchmark in loaded
    ]
