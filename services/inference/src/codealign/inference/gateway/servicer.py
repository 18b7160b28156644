"""The service's contract over workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1 import inference_pb2_grpc as pb_grpc
from codealign.common.access import peer_of
from codealign.common.errors import CodeAlignError, Unavailable, Unimplemented, describe
from codealign.inference import wire
from codealign.inference.gateway.answers import STOPS, UNLESS_MODEL_GONE, Relayed, is_at_fault, passed_on
from codealign.inference.gateway.exchange import Exchange
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.links import Links
from codealign.inference.gateway.models import Models
from codealign.inference.gateway.scaling import Workers
from codealign.inference.gateway.work import RETRY_SECONDS

Context = grpc.aio.ServicerContext[Any, Any]


class GatewayServicer(pb_grpc.InferenceServiceServicer):
    """`InferenceService` over workers."""

    def __init__(self, exchange: Exchange, models: Models, fleet: Fleet, links: Links, workers: Workers) -> None:
        self._exchange = exchange
        self._models = models
        self._fleet = fleet
        self._links = links
        self._workers = workers

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[pb.GenerateResponse]:
        """Stream completions as they arrive from workers."""
        wire.check(request)
        with self._workers.noticing():
            async with contextlib.aclosing(self._exchange.generate(request, peer_of(context))) as responses:
                async for response in responses:
                    yield response

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """List the models that are to be served, with their state at each worker."""
        return pb.ListModelsResponse(models=self._models.describe())

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return the model by name, or the only one."""
        with self._workers.noticing():
            return pb.GetModelResponse(model=self._models.get(request.name))

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:
        """Record that a model is to be served, and return when one worker has it."""
        wire.check_load(request)
        with self._workers.noticing():
            model = await self._models.load(request.source, request.name, request.expected_revision)
        return pb.LoadModelResponse(model=model)

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:
        """Record that a model is not to be served, and return when the workers have unloaded it."""
        wire.check_unload(request)
        await self._models.unload(request.name)
        return pb.UnloadModelResponse()

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """Count the tokens of each text at any worker that has the model."""
        with self._workers.noticing():
            return await self._count_tokens(request)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        """Return the load of all workers, as far as this gateway causes it."""
        return wire.load_message(self._exchange.load())

    async def SyncModels(self, request: pb.SyncModelsRequest, context: Context) -> pb.SyncModelsResponse:
        """Refuse: this is no worker."""
        raise Unimplemented("this server is a gateway, not a worker: remove its address from the worker target")

    async def _count_tokens(self, request: pb.CountTokensRequest) -> pb.CountTokensResponse:
        now = time.monotonic()
        key = self._fleet.key_of(request.model, "model", now)
        wire.check_texts(request)
        there = pb.CountTokensRequest(model=key.name, texts=request.texts)
        tried = []
        failed: CodeAlignError | None = None
        for address in self._fleet.servers(key, now):
            link = self._links.get(address)
            try:
                if link is None:
                    continue
                answer = await link.answer(link.stub.CountTokens(there))
            except Unavailable as error:
                tried.append(error.message)
            except grpc.aio.AioRpcError as error:
                if is_at_fault(error):
                    raise Relayed(error) from error
                tried.append(f"{address}: {describe(error)}")
                if error.code() not in STOPS | UNLESS_MODEL_GONE:
                    failed = failed or passed_on(error, address)
            else:
                if len(answer.counts) == len(request.texts):
                    return answer
                reason = f"it counted the tokens of {len(answer.counts)} texts, not of {len(request.texts)}"
                tried.append(f"{address}: {reason}")
                if worker := self._fleet.workers.get(address):
                    worker.misbehaved(reason, time.monotonic(), certainly=True)
        raise failed or Unavailable(
            f"no worker serves {key.name}: {'; '.join(tried) or self._fleet.why(key, now)}", retry_after=RETRY_SECONDS
        )
