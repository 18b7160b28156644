"""How many workers a gateway wants: the policy alone, and through KEDA's interface over workers in this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc
import pytest
from externalscaler import externalscaler_pb2 as keda

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import violated_fields
from codealign.common.scaling.servicer import Trigger
from codealign.inference.gateway.dispatch import Dispatcher
from codealign.inference.gateway.fleet import Fleet
from codealign.inference.gateway.members import Load, Worker
from codealign.inference.gateway.scaling import METRIC, Situation, Workers, workers_wanted
from codealign.inference.gateway.work import Job, ModelKey

from .workers import NANO, gateway, generated, request, until, until_generated, until_idle, workers


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        (Situation(0), 0),
        (Situation(0, serving=3), 0),
        (Situation(0, is_missed=True), 1),
        (Situation(1), 1),
        (Situation(8, serving=1), 1),
        (Situation(9, serving=1), 2),
        (Situation(80, serving=1, starting=9), 10),
        # A sample waits too long, though there are few: more workers, unless some already start.
        (Situation(9, oldest_seconds=61, serving=4), 6),
        (Situation(9, oldest_seconds=59, serving=4), 2),
        (Situation(9, oldest_seconds=61, serving=4, starting=1), 5),
        (Situation(90, oldest_seconds=61, serving=4, starting=1), 12),
        (Situation(1, oldest_seconds=61), 1),
        (Situation(1, oldest_seconds=61, starting=1), 1),
    ],
)
def test_workers_for_all_samples_and_more_if_one_waits_too_long(now: Situation, wanted: int) -> None:
    assert workers_wanted(now, samples_per_worker=8, wait_seconds=60) == wanted


def test_workers_that_start_are_counted_until_they_serve() -> None:
    """With the same samples, the answer stays the same from the first start to the last."""
    answers = {
        workers_wanted(Situation(40, oldest_seconds=age, serving=ready, starting=5 - ready), 8, 60)
        for ready in range(5)
        for age in (1, 30, 600)
    }
    assert answers == {5}


def test_workers_that_are_set_aside_are_there_when_more_are_wanted() -> None:
    now, key = time.monotonic(), ModelKey("m", "a")
    fleet, dispatcher = Fleet(), Dispatcher(100, 3, 30.0, 900.0)
    fleet.workers = {address: Worker(address) for address in ("w1", "w2", "w3", "w4")}
    model = pb.Model(name=key.name, revision=key.revision, source="hub/m", slots=8)
    for address in fleet.workers:
        fleet.report(address, pb.SyncModelsResponse(models=[model]), now, 1)
    dispatcher.submit(Job(key, "caller", "", lambda error: None), range(3), now - 100)
    scaling = Workers(dispatcher, fleet)
    assert scaling.value(Trigger({})) == 6, "half as many again"
    for address in ("w1", "w2"):
        fleet.workers[address].misbehaved("garbage", now, certainly=True)
    assert scaling.value(Trigger({})) == 6


def test_workers_that_cannot_have_the_model_or_are_dead_do_not_keep_others_from_being_started() -> None:
    now, key = time.monotonic(), ModelKey("m", "a")
    fleet, dispatcher = Fleet(), Dispatcher(100, 3, 30.0, 900.0)
    fleet.workers = {address: Worker(address) for address in ("w1", "w2", "w3", "w4")}
    model = pb.Model(name=key.name, revision=key.revision, source="hub/m", slots=8)
    for address in ("w1", "w2"):
        fleet.report(address, pb.SyncModelsResponse(models=[model]), now, 1)
    fleet.wanted.find("m", "hub/m", "a")
    fleet.report("w3", pb.SyncModelsResponse(), now, 1)
    fleet.workers["w4"].failed("connection refused", now)
    dispatcher.submit(Job(key, "caller", "", lambda error: None), range(3), now - 100)
    scaling = Workers(dispatcher, fleet)
    assert scaling.situation(now).starting == 2, "one may load the model, one may start"
    action = fleet.plan("w3", now)
    assert isinstance(action, Load)
    fleet.workers["w3"].refused(action, "the server beside it does not respond", now, passes=True)
    assert scaling.situation(now).starting == 2, "it may start as well"
    assert not fleet.workers["w3"].may_try(action, now + 9)
    assert fleet.workers["w3"].may_try(action, now + 11)
    fleet.workers["w3"].refused(action, "too little memory", now)
    assert fleet.count(now) == {"ready": 2, "refused": 1, "unavailable": 1}
    assert (scaling.situation(now).serving, scaling.situation(now).starting) == (3, 1)
    fleet.workers["w4"].failed("connection refused", now + 1000)
    assert scaling.situation(now + 1000).starting == 0
    assert scaling.value(Trigger({})) == 4, "that one may start"
    fleet.workers["w4"].failing_since = now - 1000
    assert scaling.value(Trigger({})) == 6, "half as many again"


def _ref(**metadata: str) -> keda.ScaledObjectRef:
    return keda.ScaledObjectRef(name="workers", namespace="lab", scalerMetadata=metadata)


async def wanted(stub: Any, **metadata: str) -> int:
    asked = keda.GetMetricsRequest(scaledObjectRef=_ref(**metadata), metricName=METRIC)
    (value,) = (await stub.scaler.GetMetrics(asked)).metricValues
    assert value.metricValueFloat == value.metricValue
    return int(value.metricValue)


async def until_wanted(stub: Any, count: int) -> None:
    async with asyncio.timeout(60):
        while await wanted(stub) != count:  # noqa: ASYNC110 (another process could ask as well)
            await asyncio.sleep(0.02)


async def test_the_metric_counts_workers_by_the_slots_of_one() -> None:
    async with workers(NANO, count=2, slots=4) as there, gateway(there) as stub:
        (spec,) = (await stub.scaler.GetMetricSpec(_ref())).metricSpecs
        assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC, 1, 1.0)
        assert await wanted(stub) == 0
        for worker in there:
            worker.servicer.mode = "hang"
        call = stub.Generate(request(count=10))
        reading = asyncio.ensure_future(call.read())
        await until_wanted(stub, 3)  # ten samples, four for each
        assert await wanted(stub, samplesPerWorker="2") == 5
        assert await wanted(stub, samplesPerWorker="100", waitSeconds="0.000001") in (1, 3)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await reading
        await until_idle(stub)
        assert await wanted(stub) == 0


@pytest.mark.parametrize("key", ["samplesPerWorker", "waitSeconds"])
async def test_a_trigger_with_a_wrong_number_is_named(key: str) -> None:
    async with gateway([], worker_target="127.0.0.1:9") as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wanted(stub, **{key: "0"})
        assert violated_fields(caught.value) == [f"scaledObjectRef.scalerMetadata.{key}"]


async def test_a_first_call_without_a_worker_asks_for_one_at_once() -> None:
    async with gateway([], worker_target="nowhere.invalid:7400", model=NANO, engine="simulated") as stub:
        stream = stub.scaler.StreamIsActive(_ref())
        assert not (await stream.read()).result
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(pb.GetModelRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await stream.read()).result
        assert await wanted(stub) == 1
        stream.cancel()


async def test_from_none_to_many_to_none_a_model_that_was_loaded_on_request_included() -> None:
    async with workers(count=3, slots=4) as there, gateway(there, worker_wait_seconds=60) as stub:
        first, *others = there
        await stub.LoadModel(pb.LoadModelRequest(source=NANO))
        texts = await generated(stub, request(count=4))
        for worker in there:
            await worker.stop()
        # Nobody is there. What is asked for waits, and wants three workers.
        waiting = asyncio.ensure_future(generated(stub, request(count=4)))
        more = [asyncio.ensure_future(generated(stub, request(f"### {at}", 4))) for at in range(2)]
        await until_wanted(stub, 3)
        assert (await stub.scaler.IsActive(_ref())).result
        await first.start()  # empty: the gateway tells it what to load
        assert await waiting == texts
        await asyncio.gather(*more)
        for worker in others:
            await worker.start()
        await until(lambda: all(worker.loaded == {NANO} for worker in there))
        await until_generated(stub, request())
        await until_idle(stub)
        assert await wanted(stub) == 0
        assert not (await stub.scaler.IsActive(_ref())).result
