"""TrainingService's contract, served: this version has no training engine, and every method says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc

from codealign.api.training.v1 import training_pb2 as api
from codealign.api.training.v1 import training_pb2_grpc as rpc
from codealign.common.errors import Unimplemented

Context = grpc.aio.ServicerContext[Any, Any]


def _refuse() -> NoReturn:
    raise Unimplemented("this version of the training service has no training engine: it serves its contract alone")


class TrainingServicer(rpc.TrainingServiceServicer):
    """Answers UNIMPLEMENTED with a reason."""

    async def SubmitTraining(self, request: api.SubmitTrainingRequest, context: Context) -> api.SubmitTrainingResponse:
        _refuse()

    async def GetTraining(self, request: api.GetTrainingRequest, context: Context) -> api.GetTrainingResponse:
        _refuse()

    async def ListTrainings(self, request: api.ListTrainingsRequest, context: Context) -> api.ListTrainingsResponse:
        _refuse()

    async def WatchTraining(
        self, request: api.WatchTrainingRequest, context: Context
    ) -> AsyncIterator[api.WatchTrainingResponse]:
        _refuse()
        yield api.WatchTrainingResponse()  # makes it a stream

    async def CancelTraining(self, request: api.CancelTrainingRequest, context: Context) -> api.CancelTrainingResponse:
        _refuse()
