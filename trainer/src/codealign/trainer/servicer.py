"""gRPC service over the trainings of a machine or a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

import grpc

from codealign.api.training.v1 import training_pb2 as api
from codealign.api.training.v1 import training_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class AnyTrainings(Protocol):
    """Trainings of a machine or of a cluster."""

    async def run(self) -> None:
        """Work until cancelled."""

    async def submit(self, given: api.TrainingSpec) -> tuple[api.Training, bool]:
        """Submit a training or find an existing one; return it and whether it existed already."""

    async def get(self, training_id: str) -> api.Training:
        """Return a training's current state."""

    async def all(self) -> list[api.Training]:
        """Return all trainings, newest first."""

    def watch(self, training_id: str) -> AsyncGenerator[api.Training]:
        """Yield a training's current state, then every change until it ends."""

    async def cancel(self, training_id: str) -> api.Training:
        """Cancel a training; do nothing if it has ended."""


class TrainingServicer(rpc.TrainingServiceServicer):
    """`TrainingService`.

    Args:
        trainings: The trainings to serve.
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
