"""TrainingService's contract over the trainings of this machine: wire to domain and back, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from codealign.api.training.v1 import training_pb2 as api
from codealign.api.training.v1 import training_pb2_grpc as rpc
from codealign.trainer.trainings import Trainings

Context = grpc.aio.ServicerContext[Any, Any]


class TrainingServicer(rpc.TrainingServiceServicer):
    """`TrainingService`.

    Args:
        trainings: What it is about.
    """

    def __init__(self, trainings: Trainings) -> None:
        self._trainings = trainings

    async def SubmitTraining(self, request: api.SubmitTrainingRequest, context: Context) -> api.SubmitTrainingResponse:
        training, existed = await self._trainings.submit(request.spec)
        return api.SubmitTrainingResponse(training=training, existed=existed)

    async def GetTraining(self, request: api.GetTrainingRequest, context: Context) -> api.GetTrainingResponse:
        return api.GetTrainingResponse(training=self._trainings.get(request.id))

    async def ListTrainings(self, request: api.ListTrainingsRequest, context: Context) -> api.ListTrainingsResponse:
        return api.ListTrainingsResponse(trainings=self._trainings.all())

    async def WatchTraining(
        self, request: api.WatchTrainingRequest, context: Context
    ) -> AsyncIterator[api.WatchTrainingResponse]:
        async with contextlib.aclosing(self._trainings.watch(request.id)) as states:
            async for training in states:
                yield api.WatchTrainingResponse(training=training)

    async def CancelTraining(self, request: api.CancelTrainingRequest, context: Context) -> api.CancelTrainingResponse:
        return api.CancelTrainingResponse(training=await self._trainings.cancel(request.id))
