"""Wire ↔ runs, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.clients import Clients
from codealign.common.errors import InvalidArgument
from codealign.coordinator.evaluation.evaluator import Evaluator
from codealign.coordinator.runs import plan, report
from codealign.coordinator.runs.supervisor import Supervisor

Context = grpc.aio.ServicerContext[Any, Any]
MIN_INTERVAL, MAX_INTERVAL, DEFAULT_INTERVAL = 0.1, 60.0, 0.5


class CoordinatorServicer(rpc.CoordinatorServiceServicer):
    """CoordinatorService over a supervisor and an evaluator."""

    def __init__(self, supervisor: Supervisor, evaluator: Evaluator, clients: Clients) -> None:
        self._supervisor, self._evaluator, self._clients = supervisor, evaluator, clients

    async def CreateRun(self, request: api.CreateRunRequest, context: Context) -> api.CreateRunResponse:
        run, existed = await self._supervisor.create(request.config)
        return api.CreateRunResponse(run=run, existed=existed)

    async def PlanRun(self, request: api.PlanRunRequest, context: Context) -> api.PlanRunResponse:
        run, notes = await self._supervisor.prepare(request.config)
        return await plan.build(self._clients, run, notes)

    async def GetRun(self, request: api.GetRunRequest, context: Context) -> api.GetRunResponse:
        return api.GetRunResponse(run=await self._status(request.run))

    async def ListRuns(self, request: api.ListRunsRequest, context: Context) -> api.ListRunsResponse:
        return api.ListRunsResponse(runs=await self._supervisor.list())

    async def WatchRun(self, request: api.WatchRunRequest, context: Context) -> AsyncIterator[api.WatchRunResponse]:
        interval = request.interval_seconds or DEFAULT_INTERVAL
        if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
            raise InvalidArgument("interval_seconds", f"must be from {MIN_INTERVAL} to {MAX_INTERVAL}")
        record = await self._supervisor.find(request.run)
        last = None
        while True:
            status = await self._supervisor.status(record.id)
            if status != last:
                yield api.WatchRunResponse(run=status)
                last = status
            if status.state != pb.RUN_STATE_RUNNING:
                return
            await asyncio.sleep(interval)

    async def PauseRun(self, request: api.PauseRunRequest, context: Context) -> api.PauseRunResponse:
        record = await self._supervisor.find(request.run)
        await self._supervisor.pause(record)
        return api.PauseRunResponse(run=await self._supervisor.status(record.id))

    async def ResumeRun(self, request: api.ResumeRunRequest, context: Context) -> api.ResumeRunResponse:
        record = await self._supervisor.find(request.run)
        await self._supervisor.resume(record)
        return api.ResumeRunResponse(run=await self._supervisor.status(record.id))

    async def CancelRun(self, request: api.CancelRunRequest, context: Context) -> api.CancelRunResponse:
        record = await self._supervisor.find(request.run)
        await self._supervisor.cancel(record)
        return api.CancelRunResponse(run=await self._supervisor.status(record.id))

    async def Evaluate(self, request: api.EvaluateRequest, context: Context) -> AsyncIterator[api.EvaluateResponse]:
        # Closed explicitly, so that a cancelled call stops its work now and not when garbage is collected.
        async with contextlib.aclosing(self._evaluator.evaluate(request)) as responses:
            async for response in responses:
                yield response

    async def GetReport(self, request: api.GetReportRequest, context: Context) -> api.GetReportResponse:
        status = await self._status(request.run)
        return await report.build(self._clients, status)

    async def _status(self, run: str) -> api.RunStatus:
        record = await self._supervisor.find(run)
        return await self._supervisor.status(record.id)
