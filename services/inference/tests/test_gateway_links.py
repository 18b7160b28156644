"""When a worker that does not respond counts as lost."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
import structlog

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.links import Link
from codealign.inference.gateway.members import Worker
from codealign.inference.gateway.work import ModelKey

ADDRESS = "127.0.0.1:9"


class Changes:
    """Notes how often the worker was asked, and why it counts as lost."""

    def __init__(self) -> None:
        self.reports = 0
        self.reasons: list[str] = []

    def reported(self, address: str) -> None:
        self.reports += 1

    def lost(self, address: str, reason: str) -> None:
        self.reasons.append(reason)


@pytest.mark.parametrize(
    ("code", "drain_seconds", "is_lost"),
    [
        (grpc.StatusCode.UNAVAILABLE, 1000.0, False),  # it drains: what it has, it finishes
        (grpc.StatusCode.UNAVAILABLE, 0.0, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 1000.0, True),  # it hangs
    ],
)
async def test_a_worker_that_stops_is_lost_only_after_the_grace_period(
    code: grpc.StatusCode, drain_seconds: float, is_lost: bool
) -> None:
    async def sync(request: pb.SyncModelsRequest, timeout: float) -> pb.SyncModelsResponse:
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(code, nothing, nothing, details="no")

    fleet, changes = Fleet(), Changes()
    fleet.workers[ADDRESS] = Worker(ADDRESS)
    channel = grpc.aio.insecure_channel(ADDRESS)
    stub: Any = SimpleNamespace(SyncModels=sync)
    link = Link(ADDRESS, channel, fleet, changes, 0.001, 1e-9, drain_seconds)  # type: ignore[arg-type]
    link.stub = stub
    async with asyncio.timeout(30):
        while changes.reports < 3:  # noqa: ASYNC110 (other tasks change it)
            await asyncio.sleep(0.001)
    await link.close()
    assert bool(changes.reasons) is is_lost
    assert fleet.workers[ADDRESS].trouble, "it gets nothing more in any case"


async def test_a_worker_that_does_not_unload_a_model_is_asked_again_after_a_pause() -> None:
    asked = 0
    nothing = grpc.aio.Metadata()

    async def sync(request: pb.SyncModelsRequest, timeout: float) -> pb.SyncModelsResponse:
        return pb.SyncModelsResponse(models=[pb.Model(name="m", revision="a")])

    async def unload(request: pb.UnloadModelRequest) -> pb.UnloadModelResponse:
        nonlocal asked
        asked += 1
        raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, details="no")

    fleet, changes = Fleet(), Changes()
    fleet.wanted.record("m", "hub/m", "b", pinned=True, now_ms=1)
    fleet.workers[ADDRESS] = Worker(ADDRESS)
    link = Link(ADDRESS, grpc.aio.insecure_channel(ADDRESS), fleet, changes, 0.1, 60.0, 60.0)  # type: ignore[arg-type]
    link.stub = cast("Any", SimpleNamespace(SyncModels=sync, UnloadModel=unload))
    start = time.monotonic()
    async with asyncio.timeout(30):
        while asked < 3:  # noqa: ASYNC110 (other tasks change it)
            await asyncio.sleep(0.01)
    await link.close()
    assert time.monotonic() - start > 0.15


@pytest.mark.parametrize("has_it", [False, True])
async def test_a_worker_whose_answers_contradict_its_reports_is_asked_again_after_a_pause(has_it: bool) -> None:
    """It says that it has loaded a model, or unloaded another revision of it, and its report is the same as before."""
    asked = 0

    async def sync(request: pb.SyncModelsRequest, timeout: float) -> pb.SyncModelsResponse:
        return pb.SyncModelsResponse(models=[pb.Model(name="m", revision="a")] if has_it else [])

    async def obey(request: Any) -> None:
        nonlocal asked
        asked += 1

    fleet, changes = Fleet(), Changes()
    fleet.wanted.record("m", "hub/m", "b", pinned=True, now_ms=1)
    worker = fleet.workers[ADDRESS] = Worker(ADDRESS)
    link = Link(ADDRESS, grpc.aio.insecure_channel(ADDRESS), fleet, changes, 0.1, 60.0, 60.0)  # type: ignore[arg-type]
    link.stub = cast("Any", SimpleNamespace(SyncModels=sync, LoadModel=obey, UnloadModel=obey))
    start = time.monotonic()
    await asyncio.sleep(0.3)
    await link.close()
    assert 1 <= asked <= 1 + (time.monotonic() - start) / 0.1
    if not has_it:
        replica = worker.replica(ModelKey("m", "b"), "hub/m", time.monotonic())
        assert replica.reason == "it answered that it has loaded the model, but does not report it"


async def test_why_a_worker_is_not_used_is_logged_once() -> None:
    answers: list[pb.SyncModelsResponse | None] = [None, None]
    answers += [pb.SyncModelsResponse(models=[pb.Model(name="m", source="s", revision="other")])] * 3

    async def sync(request: pb.SyncModelsRequest, timeout: float) -> pb.SyncModelsResponse:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details="no")
        return answer

    fleet, changes = Fleet(), Changes()
    fleet.wanted.find("m", "s", "one")
    fleet.workers[ADDRESS] = Worker(ADDRESS)
    with structlog.testing.capture_logs() as events:
        link = Link(ADDRESS, grpc.aio.insecure_channel(ADDRESS), fleet, changes, 0.001, 1000.0, 1000.0)  # type: ignore[arg-type]
        link.stub = cast("Any", SimpleNamespace(SyncModels=sync))
        async with asyncio.timeout(30):
            while changes.reports < 8:  # noqa: ASYNC110 (other tasks change it)
                await asyncio.sleep(0.001)
        await link.close()
    warnings = [(each["event"], each["reason"]) for each in events if each["log_level"] == "warning"]
    assert warnings == [("worker_unavailable", "no"), ("worker_refused", "it has revision other of m, not one")]
