"""TrainingService's contract over the trainings of a machine or a cluster: wire to domain and back, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

import grpc

from codealign.api.training.v1 import training_pb2 as api
from codealign.api.training.v1 import training_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class AnyTrainings(Protocol):
    """Trainings, wherever they run."""

    async def run(self) -> None:
        """Work, until cancelled."""

    async def submit(self, given: api.TrainingSpec) -> tuple[api.Training, bool]:
        """Take a training, or find it again; with whether it was there already."""

    async def get(self, training_id: str) -> api.Training:
        """A training as it is now."""

    async def all(self) -> list[api.Training]:
        """Every training, newest first."""

    def watch(self, training_id: str) -> AsyncGenerator[api.Training]:
        """A training as it is now, and again whenever it has changed, until it ends."""

    async def cancel(self, training_id: str) -> api.Training:
        """Stop a training; one that has ended stays as it is."""


class TrainingServicer(rpc.TrainingServiceServicer):
    """`TrainingService`.

    Args:
        trainings: What it is about.
    """

    def __init__(self, trainings: AnyTrainings) -> None:
        self._trainings = trainings

    async def SubmitTraining(self, request: api.SubmitTrainingRequest, context: Context) -> api.SubmitTrainingResponse:
        training, existed = await self._trainings.submit(request.spec)
        return api.SubmitTrainingResponse(training=training, existed=existed)

    async def GetTraining(self, request: api.GetTrainingRequest, context: Context) -> api.GetTrainingResponse:
        return api.GetTrainingResponse(training=await self._trainings.get(request.id))

    async def ListTrainings(self, request: api.ListTrainingsRequest, context: Context) -> api.ListTrainingsResponse:
        return api.ListTrainingsResponse(trainings=await self._trainings.all())

    async def WatchTraining(
        self, request: api.WatchTrainingRequest, context: Context
    ) -> AsyncIterator[api.WatchTrainingResponse]:
        async with contextlib.aclosing(self._trainings.watch(request.id)) as states:
            async for training in states:
                yield api.WatchTrainingResponse(training=training)

    async def CancelTraining(self, request: api.CancelTrainingRequest, context: Context) -> api.CancelTrainingResponse:
        return api.CancelTrainingResponse(training=await self._trainings.cancel(request.id))
