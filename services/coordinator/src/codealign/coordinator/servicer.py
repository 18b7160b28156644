"""The gRPC servicer: converts between protobuf messages and runs, loops, series and evaluations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine
from typing import Any, TypeVar

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import FailedPrecondition, InvalidArgument, Unavailable
from codealign.coordinator import pipelines
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.experiments.operations import Experiments
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.faults import TRANSIENT
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.loops.history import loops_of
from codealign.coordinator.loops.operations import Loops
from codealign.coordinator.reporting import report
from codealign.coordinator.rounds.operations import Rounds, has_settled
from codealign.coordinator.runs import plan
from codealign.coordinator.runs.operations import ENDING, Runs

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")
MIN_INTERVAL, MAX_INTERVAL, DEFAULT_INTERVAL = 0.1, 60.0, 0.5
EXPERIMENT_INTERVAL = 2.0
"""Default interval for experiments: each message requires several calls to the store for every cell."""
BY_A_PERSON = {
    pb.RUN_STATE_RUNNING: "resumed",
    pb.RUN_STATE_PAUSED: "paused; resume with `codealign resume`",
    pb.RUN_STATE_CANCELLED: "cancelled; finished work is kept",
}


class CoordinatorServicer(rpc.CoordinatorServiceServicer):
    """CoordinatorService.

    Args:
        runs: Operations on runs.
        loops: Operations on the loops that follow runs.
        rounds: Operations on series of rounds.
        evaluations: Operations on evaluations.
        experiments: Operations on experiments.
        services: Services for plans and reports.
        draining: Set when the server starts shutting down; ends calls that watch.
    """

    def __init__(
        self,
        runs: Runs,
        loops: Loops,
        rounds: Rounds,
        evaluations: Evaluations,
        experiments: Experiments,
        services: Services,
        draining: asyncio.Event,
    ) -> None:
        self._runs, self._loops, self._rounds, self._evaluations = runs, loops, rounds, evaluations
        self._experiments = experiments
        self._services, self._draining = services, draining

    async def ListPipelines(self, request: api.ListPipelinesRequest, context: Context) -> api.ListPipelinesResponse:
        described = [pipelines.describe(pipelines.get(name)) for name in pipelines.names()]
        return api.ListPipelinesResponse(pipelines=described)

    async def GetPipeline(self, request: api.GetPipelineRequest, context: Context) -> api.GetPipelineResponse:
        return api.GetPipelineResponse(pipeline=pipelines.describe(pipelines.get(request.name)))

    async def CreateRun(self, request: api.CreateRunRequest, context: Context) -> api.CreateRunResponse:
        self._runs.must_work()
        run, _, _ = await self._checked(request)
        created, existed = await _whole(self._create(run, request))
        return api.CreateRunResponse(run=await self._status(created), existed=existed)

    async def _checked(
        self, request: api.CreateRunRequest | api.PlanRunRequest
    ) -> tuple[pb.Run, list[str], int | None]:
        """Return the run's full configuration, notes, and its seeds, after checking that run, loop and series can be.

        The seeds are None if no check had to count them.

        Raises:
            InvalidArgument: Names every invalid field of all.
        """
        wrong: list[tuple[str, str]] = []
        if request.HasField("series"):
            try:
                self._rounds.check(request)
            except InvalidArgument as error:
                wrong = error.violations
        if request.HasField("loop"):
            try:
                await self._loops.check(request.loop)
            except InvalidArgument as error:
                wrong = [*error.violations, *wrong]
        available = None
        try:
            run, notes = await self._runs.prepare(request.config)
            if request.HasField("loop"):
                await self._loops.source(run.model)
                if request.loop.training.rows > 0:
                    available = await plan.available_of(self._services, run)
                    if told := plan.too_many_rows(request.loop.training.rows, run, available):
                        wrong.append(("loop.training.rows", told))
        except InvalidArgument as error:
            wrong = [*error.violations, *wrong]
        if wrong:
            raise InvalidArgument(violations=wrong)
        return run, notes, available

    async def _create(self, run: pb.Run, request: api.CreateRunRequest) -> tuple[pb.Record, bool]:
        created, existed = await self._runs.create(run)
        if request.HasField("series"):
            await self._rounds.wanted(created, request)
        elif request.HasField("loop"):
            await self._loops.wanted(created, request.loop)
        return created, existed

    async def RejudgeRun(self, request: api.RejudgeRunRequest, context: Context) -> api.RejudgeRunResponse:
        run, existed = await _whole(self._runs.rejudge(request))
        return api.RejudgeRunResponse(run=await self._status(run), existed=existed)

    async def PlanRun(self, request: api.PlanRunRequest, context: Context) -> api.PlanRunResponse:
        run, notes, available = await self._checked(request)
        return await plan.build(self._services, run, notes, available)

    async def GetRun(self, request: api.GetRunRequest, context: Context) -> api.GetRunResponse:
        return api.GetRunResponse(run=await self._status(await self._runs.find(request.run)))

    async def ListRuns(self, request: api.ListRunsRequest, context: Context) -> api.ListRunsResponse:
        standings = await requests.standings(self._services.dataset)
        listed = await self._runs.list(standings, summary_only=request.summary_only)
        loops = await self._loops.list(standings)
        for status in listed:
            if status.id in loops:
                status.loop.CopyFrom(loops[status.id])
        return api.ListRunsResponse(runs=listed)

    async def WatchRun(self, request: api.WatchRunRequest, context: Context) -> AsyncIterator[api.WatchRunResponse]:
        interval = _interval(request.interval_seconds, DEFAULT_INTERVAL)
        run = await self._runs.find(request.run)
        last: api.RunStatus | None = None
        while True:
            status = await self._watched(run, last)
            if status != last:
                yield api.WatchRunResponse(run=status)
                last = status
            if has_settled(status):
                return
            await self._wait(interval, "the run")

    async def _wait(self, seconds: float, what: str) -> None:
        """Wait before the next message of a watching call.

        Raises:
            Unavailable: The server is shutting down.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        if self._draining.is_set():
            raise Unavailable(f"this coordinator is shutting down; {what} continues: watch it again", retry_after=1.0)

    async def _watched(self, run: pb.Record, last: api.RunStatus | None) -> api.RunStatus:
        """Return the run's current status or, during a store outage, its last status and what it is waiting for."""
        try:
            return await self._status(run)
        except TRANSIENT as error:
            if last is None:
                raise
            status = api.RunStatus()
            status.CopyFrom(last)
            status.waiting_for = status.waiting_for or error.message
            return status

    async def PauseRun(self, request: api.PauseRunRequest, context: Context) -> api.PauseRunResponse:
        return api.PauseRunResponse(run=await self._want(request.run, pb.RUN_STATE_PAUSED))

    async def ResumeRun(self, request: api.ResumeRunRequest, context: Context) -> api.ResumeRunResponse:
        return api.ResumeRunResponse(run=await self._want(request.run, pb.RUN_STATE_RUNNING))

    async def CancelRun(self, request: api.CancelRunRequest, context: Context) -> api.CancelRunResponse:
        return api.CancelRunResponse(run=await self._want(request.run, pb.RUN_STATE_CANCELLED))

    async def _want(self, text: str, wanted: pb.RunState.ValueType) -> api.RunStatus:
        """Record a request for a run's series, or else for the run and its loop, as far as they have not ended."""
        run = await self._runs.find(text)
        await _whole(self._want_both(run, wanted))
        status = await self._status(run)
        if status.state == pb.RUN_STATE_RUNNING and status.wanted != wanted:
            # Its controller reads the request shortly.
            status.wanted, status.message = wanted, ENDING.get(wanted, status.message)
        return status

    async def _want_both(self, run: pb.Record, wanted: pb.RunState.ValueType) -> None:
        reason = BY_A_PERSON[wanted]
        self._runs.must_work()
        if await self._rounds.want(run.id, wanted, reason):
            return
        refused: FailedPrecondition | None = None
        try:
            await self._runs.want(run, wanted, reason)
        except FailedPrecondition as error:
            refused = error
        if not await self._loops.want(run.id, wanted, reason) and refused is not None:
            raise refused

    async def Evaluate(self, request: api.EvaluateRequest, context: Context) -> AsyncIterator[api.EvaluateResponse]:
        # Closed explicitly, so that a cancelled call stops watching at once rather than at garbage collection.
        async with contextlib.aclosing(self._evaluations.evaluate(request)) as responses:
            while (response := await self._next(responses)) is not None:
                yield response

    async def _next(self, responses: AsyncGenerator[T]) -> T | None:
        """Return the next message, or None if there is none left. Waits without limit.

        Raises:
            Unavailable: The server is shutting down; a silent evaluation must not delay it.
        """
        coming = asyncio.ensure_future(anext(responses, None))
        stopping = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait([coming, stopping], return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return coming.result()
        finally:
            for task in (coming, stopping):
                task.cancel()
            await asyncio.wait([coming, stopping])
        raise Unavailable(
            "this coordinator is shutting down; the evaluation continues: watch it again", retry_after=1.0
        )

    async def ListEvaluations(
        self, request: api.ListEvaluationsRequest, context: Context
    ) -> api.ListEvaluationsResponse:
        return api.ListEvaluationsResponse(evaluations=await self._evaluations.list())

    async def GetEvaluation(self, request: api.GetEvaluationRequest, context: Context) -> api.GetEvaluationResponse:
        return await self._evaluations.get(request.evaluation)

    async def CancelEvaluation(
        self, request: api.CancelEvaluationRequest, context: Context
    ) -> api.CancelEvaluationResponse:
        return api.CancelEvaluationResponse(evaluation=await self._evaluations.cancel(request.evaluation))

    async def CreateExperiment(
        self, request: api.CreateExperimentRequest, context: Context
    ) -> api.CreateExperimentResponse:
        record = await self._experiments.prepare(request.config)
        if request.validate_only:
            return api.CreateExperimentResponse(experiment=api.ExperimentStatus(id=record.id, config=record.experiment))
        record, existed = await _whole(self._experiments.create(record))
        return api.CreateExperimentResponse(experiment=await self._experiments.status(record), existed=existed)

    async def GetExperiment(self, request: api.GetExperimentRequest, context: Context) -> api.GetExperimentResponse:
        return await self._experiments.result(await self._experiments.find(request.experiment))

    async def ListExperiments(
        self, request: api.ListExperimentsRequest, context: Context
    ) -> api.ListExperimentsResponse:
        return api.ListExperimentsResponse(experiments=await self._experiments.list())

    async def WatchExperiment(
        self, request: api.WatchExperimentRequest, context: Context
    ) -> AsyncIterator[api.WatchExperimentResponse]:
        interval = _interval(request.interval_seconds, EXPERIMENT_INTERVAL)
        record = await self._experiments.find(request.experiment)
        last = api.ExperimentStatus()
        while True:
            status = api.ExperimentStatus()
            try:
                status.CopyFrom(await self._experiments.status(record))
            except TRANSIENT as error:
                if not last.id:
                    raise
                status.CopyFrom(last)
                status.waiting_for = status.waiting_for or error.message
            if status != last:
                yield api.WatchExperimentResponse(experiment=status)
                last = status
            if status.state != pb.RUN_STATE_RUNNING:
                return
            await self._wait(interval, "the experiment")

    async def PauseExperiment(
        self, request: api.PauseExperimentRequest, context: Context
    ) -> api.PauseExperimentResponse:
        status = await self._want_experiment(request.experiment, pb.RUN_STATE_PAUSED)
        return api.PauseExperimentResponse(experiment=status)

    async def ResumeExperiment(
        self, request: api.ResumeExperimentRequest, context: Context
    ) -> api.ResumeExperimentResponse:
        status = await self._want_experiment(request.experiment, pb.RUN_STATE_RUNNING)
        return api.ResumeExperimentResponse(experiment=status)

    async def CancelExperiment(
        self, request: api.CancelExperimentRequest, context: Context
    ) -> api.CancelExperimentResponse:
        status = await self._want_experiment(request.experiment, pb.RUN_STATE_CANCELLED)
        return api.CancelExperimentResponse(experiment=status)

    async def _want_experiment(self, text: str, wanted: pb.RunState.ValueType) -> api.ExperimentStatus:
        record = await self._experiments.find(text)
        await self._experiments.want(
            record, wanted, BY_A_PERSON[wanted].replace("codealign resume", "codealign experiment resume")
        )
        return await self._experiments.status(record)

    async def GetReport(self, request: api.GetReportRequest, context: Context) -> api.GetReportResponse:
        status = await self._status(await self._runs.find(request.run))
        return await report.build(self._services, status)

    async def _status(self, run: pb.Record) -> api.RunStatus:
        status = await self._runs.status(run)
        await self._add_what_follows(status)
        return status

    async def _add_what_follows(self, status: api.RunStatus) -> None:
        try:
            loops = await loops_of(self._services.dataset, status.id)
            loop = await self._loops.status(status.id, loops)
            series = await self._rounds.status(status.id, [record for record, _ in loops])
        except TRANSIENT:
            if not status.waiting_for:
                raise
            return  # the run's status already says what it is waiting for
        if loop is not None:
            status.loop.CopyFrom(loop)
        if series is not None:
            status.series.CopyFrom(series)


def _interval(given: float, default: float) -> float:
    """Return the interval of a watching call in seconds.

    Raises:
        InvalidArgument: It is out of range.
    """
    interval = given or default
    if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
        raise InvalidArgument("interval_seconds", f"must be from {MIN_INTERVAL} to {MAX_INTERVAL}")
    return interval


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Finish the work even if the caller disconnects: it writes several records that belong together."""
    task = asyncio.ensure_future(work)
    _UNFINISHED.add(task)
    task.add_done_callback(_UNFINISHED.discard)
    return await asyncio.shield(task)


_UNFINISHED: set[Awaitable[Any]] = set()
