"""KEDA's external scaler, called as KEDA does: over gRPC, by the interface's own names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from externalscaler import externalscaler_pb2 as pb
from externalscaler import externalscaler_pb2_grpc as rpc

from codealign.common.errors import violated_fields
from codealign.common.interceptors import ServerInterceptor
from codealign.common.scaling.demand import Demand
from codealign.common.scaling.servicer import ScalerServicer
from codealign.sandbox.scaling import METRIC, Executions


class Scaler:
    """A server with only the scaler, and KEDA's end of it."""

    def __init__(self, idle_seconds: float = 0.0) -> None:
        self.demand = Demand(idle_seconds)
        self.draining = asyncio.Event()
        self.slots = 2
        self.server = grpc.aio.server(interceptors=[ServerInterceptor(60)])
        servicer = ScalerServicer(Executions(self.demand, lambda: self.slots), self.demand, self.draining)
        rpc.add_ExternalScalerServicer_to_server(servicer, self.server)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}")
        self.stub = rpc.ExternalScalerStub(self.channel)


@pytest.fixture
async def scaler() -> AsyncIterator[Scaler]:
    made = Scaler()
    await made.server.start()
    yield made
    await made.channel.close()
    await made.server.stop(None)


def _ref(**metadata: str) -> pb.ScaledObjectRef:
    return pb.ScaledObjectRef(name="sandbox-runners", namespace="codealign", scalerMetadata=metadata)


async def _spec(scaler: Scaler, **metadata: str) -> pb.MetricSpec:
    (spec,) = (await scaler.stub.GetMetricSpec(_ref(**metadata))).metricSpecs
    return spec


async def test_the_target_is_what_a_runner_runs_at_once(scaler: Scaler) -> None:
    spec = await _spec(scaler, scalerAddress="sandbox:7000")
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC, 2, 2.0)
    scaler.slots = 4
    assert (await _spec(scaler)).targetSize == 4


async def test_the_trigger_may_set_another_target(scaler: Scaler) -> None:
    spec = await _spec(scaler, targetPerReplica="0.5")
    assert (spec.targetSize, spec.targetSizeFloat) == (1, 0.5)


@pytest.mark.parametrize("target", ["many", "0", "-1", "nan", "inf"])
async def test_a_target_that_is_no_positive_number_is_named(scaler: Scaler, target: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _spec(scaler, targetPerReplica=target)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(caught.value) == ["scalerMetadata.targetPerReplica"]
    asked = pb.GetMetricsRequest(scaledObjectRef=_ref(targetPerReplica=target), metricName=METRIC)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scaler.stub.GetMetrics(asked)
    assert violated_fields(caught.value) == ["scaledObjectRef.scalerMetadata.targetPerReplica"]


async def test_the_metric_is_what_waits_and_what_runs(scaler: Scaler) -> None:
    scaler.demand.set(7)
    asked = pb.GetMetricsRequest(scaledObjectRef=_ref(), metricName=METRIC)
    (value,) = (await scaler.stub.GetMetrics(asked)).metricValues
    assert (value.metricName, value.metricValue, value.metricValueFloat) == (METRIC, 7, 7.0)


async def test_an_unknown_metric_is_named(scaler: Scaler) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scaler.stub.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=_ref(), metricName="s0-x"))
    assert violated_fields(caught.value) == ["metricName"]


async def test_runners_are_needed_while_anything_is_wanted(scaler: Scaler) -> None:
    assert not (await scaler.stub.IsActive(_ref())).result
    scaler.demand.set(1)
    assert (await scaler.stub.IsActive(_ref())).result
    scaler.demand.set(0)
    assert not (await scaler.stub.IsActive(_ref())).result


async def test_a_change_is_pushed_and_the_stream_ends_when_the_gateway_stops(scaler: Scaler) -> None:
    call = scaler.stub.StreamIsActive(_ref())
    told = []
    async for response in call:
        told.append(response.result)
        if len(told) == 5:
            scaler.draining.set()
        else:
            # An unchanged state is not sent again.
            scaler.demand.set(0 if response.result else 3)
            scaler.demand.set(0 if response.result else 4)
    assert told == [False, True, False, True, False]


async def test_for_a_while_after_the_last_execution_runners_are_still_needed() -> None:
    demand, draining = Demand(idle_seconds=0.2), asyncio.Event()
    activity = demand.activity(draining)
    assert not await anext(activity)
    demand.set(1)
    assert await anext(activity)
    demand.set(0)
    assert demand.is_active
    assert not await anext(activity), "and then, without any further event, no more"
    assert not demand.is_active
