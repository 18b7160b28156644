"""Workers with the simulated engine in this process, some of which misbehave, and a gateway in front of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import grpc
from externalscaler.externalscaler_pb2_grpc import ExternalScalerStub, add_ExternalScalerServicer_to_server

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import (
    InferenceServiceStub,
    add_InferenceServiceServicer_to_server,
)
from codealign.common.errors import FailedPrecondition, Internal, NotFound, ResourceExhausted
from codealign.common.health import Readiness
from codealign.common.interceptors import ServerInterceptor
from codealign.inference.engine_opener import EngineOpener
from codealign.inference.engines.base import Engine
from codealign.inference.gateway import wiring
from codealign.inference.registry import ModelRegistry
from codealign.inference.servicer import InferenceServicer
from codealign.inference.settings import InferenceSettings

NANO = "nano"
BIG = "qwen2.5-coder-1.5b"
"""Profiles of the simulated engine."""


class Opener(EngineOpener):
    """Refuses what does not fit, as the real engines do."""

    too_big: Collection[str] = ()

    async def open(self, source: str, name: str, expected_revision: str) -> Engine:
        if source in self.too_big:
            raise FailedPrecondition(f"{source} needs about 30.0 GB but only 10.0 GB are free")
        return await super().open(source, name, expected_revision)


class Servicer(InferenceServicer):
    """Counts what it is asked for, and may misbehave."""

    def __init__(self, models: ModelRegistry) -> None:
        super().__init__(models)
        self.mode = ""
        self.asked: list[pb.GenerateRequest] = []
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def _stuck(self) -> None:
        while self.mode == "stuck":  # noqa: ASYNC110 (a test changes it)
            await asyncio.sleep(0.05)

    async def SyncModels(self, request: pb.SyncModelsRequest, context: Any) -> pb.SyncModelsResponse:
        await self._stuck()
        report = await super().SyncModels(request, context)
        for model in report.models:
            if self.mode == "slots":
                model.slots = 2**31 - 1
            if self.mode == "revision":
                model.revision = ""
        for entry in report.wanted:
            if self.mode == "version":
                entry.version = 2**63 - 1
        return report

    async def LoadModel(self, request: pb.LoadModelRequest, context: Any) -> pb.LoadModelResponse:
        await self._stuck()
        await self.may_load.wait()
        return await super().LoadModel(request, context)

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Any) -> pb.UnloadModelResponse:
        await self._stuck()
        return await super().UnloadModel(request, context)

    async def CountTokens(self, request: pb.CountTokensRequest, context: Any) -> pb.CountTokensResponse:
        await self._stuck()
        if self.mode == "gone":
            raise NotFound("model nano is not loaded; no model is loaded")
        answer = await super().CountTokens(request, context)
        return pb.CountTokensResponse(counts=answer.counts[1:]) if self.mode == "garbage" else answer

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        self.asked.append(request)
        if self.mode == "hang":
            await asyncio.sleep(60)
        if self.mode == "busy":
            raise ResourceExhausted("full", retry_after=0.1)
        if self.mode == "internal":
            raise Internal("broken")
        if self.mode == "short":
            return
        async for response in super().Generate(request, context):
            if self.mode == "garbage":
                response.completion.seed += 1
            if self.mode == "twice":
                yield response
            yield response


class Worker:
    """A worker on a port that stays the same when it is restarted."""

    def __init__(self, *, seed: int = 0, slots: int = 8, too_big: Collection[str] = ()) -> None:
        self._settings = InferenceSettings(
            engine="simulated", simulated_speed=0, simulated_seed=seed, slots=slots, max_waiting=10_000
        )
        self.too_big = set(too_big)
        self._server: grpc.aio.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, *models: str) -> None:
        opener = Opener(self._settings)
        opener.too_big = self.too_big
        self.models = ModelRegistry(opener)
        for model in models:
            await self.models.open(model)
        self.servicer = Servicer(self.models)
        self._server = grpc.aio.server(interceptors=[ServerInterceptor(60)], options=[("grpc.so_reuseport", 0)])
        add_InferenceServiceServicer_to_server(self.servicer, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            await self.models.close()
            self._server = None

    @property
    def loaded(self) -> set[str]:
        return {model.name for model in self.models.models}

    @property
    def samples(self) -> int:
        return sum(len(request.samples) for request in self.servicer.asked)


@contextlib.asynccontextmanager
async def workers(*models: str, count: int = 3, **options: Any) -> AsyncIterator[list[Worker]]:
    """Run workers that have loaded these models."""
    started = [Worker(**options) for _ in range(count)]
    try:
        for worker in started:
            await worker.start(*models)
        yield started
    finally:
        for worker in started:
            await worker.stop()


@contextlib.asynccontextmanager
async def gateway(there: list[Worker], **settings: Any) -> AsyncIterator[Any]:
    """Run a gateway in front of workers and yield a stub of it."""
    chosen = {
        "worker_target": ",".join(worker.address for worker in there),
        "worker_probe_seconds": 0.1,
        "drain_seconds": 1.0,
        **settings,
    }
    async with wiring.opened(InferenceSettings(**chosen), Readiness()) as opened:
        server = grpc.aio.server(interceptors=[ServerInterceptor(60)])
        add_InferenceServiceServicer_to_server(opened.servicer, server)
        add_ExternalScalerServicer_to_server(opened.scaler, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub: Any = InferenceServiceStub(channel)
                stub.scaler = ExternalScalerStub(channel)
                yield stub
        finally:
            await server.stop(0)


def request(prompt: str = "### Task", count: int = 1, **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        prompt=prompt,
        samples=[pb.Sample(attempt=number, seed=1000 + number) for number in range(count)],
        sampling=pb.SamplingParameters(temperature=1, max_tokens=20),
        **fields,
    )


async def generated(stub: Any, asked: pb.GenerateRequest) -> dict[int, str]:
    """Return the texts by attempt, and check that each is there once."""
    texts: dict[int, str] = {}
    async for response in stub.Generate(asked):
        assert response.completion.attempt not in texts
        texts[response.completion.attempt] = response.completion.text
    assert set(texts) == {sample.attempt for sample in asked.samples}
    return texts


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (other tasks change it)
            await asyncio.sleep(0.02)


async def replicas(stub: Any, name: str) -> dict[str, pb.Replica]:
    answer = await stub.ListModels(pb.ListModelsRequest())
    (model,) = [model for model in answer.models if model.name == name]
    return {replica.worker: replica for replica in model.replicas}


async def until_replica(stub: Any, name: str, worker: Worker, state: pb.ReplicaState.ValueType) -> pb.Replica:
    """Wait until a model has this state at a worker, and return it."""
    async with asyncio.timeout(60):
        while (found := (await replicas(stub, name))[worker.address]).state != state:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def until_idle(stub: Any) -> None:
    """Wait until nothing waits or runs."""
    async with asyncio.timeout(60):
        while (load := await stub.GetLoad(pb.GetLoadRequest())).waiting or load.running:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_generated(stub: Any, asked: pb.GenerateRequest) -> None:
    """Generate as soon as the model is available."""
    async with asyncio.timeout(60):
        while True:
            try:
                await generated(stub, asked)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.05)
