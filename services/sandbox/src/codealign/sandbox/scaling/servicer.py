"""KEDA's side of the gateway: what its external scaler asks, answered from the demand.

https://keda.sh/docs/latest/concepts/external-scalers/ has the interface. The metric is the number of executions that
wait or run; KEDA wants that number, divided by what one replica runs at once, of replicas, rounded up.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from externalscaler import externalscaler_pb2 as pb
from externalscaler import externalscaler_pb2_grpc as rpc

from codealign.common.errors import InvalidArgument
from codealign.sandbox.scaling.demand import Demand

METRIC = "codealign-sandbox-executions"
TARGET = "targetPerReplica"
"""Key of a ScaledObject's trigger metadata: executions that one replica is to have, in place of its slots."""


def _target(ref: pb.ScaledObjectRef, path: str) -> float | None:
    """What the trigger's metadata says; None where it says nothing.

    Raises:
        InvalidArgument: It is no positive number.
    """
    text = ref.scalerMetadata.get(TARGET, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InvalidArgument(f"{path}scalerMetadata.{TARGET}", f"must be a positive number, got {text[:40]!r}")
    return value


class ScalerServicer(rpc.ExternalScalerServicer):
    """Implements KEDA's `externalscaler.ExternalScaler`."""

    def __init__(self, demand: Demand, slots_per_replica: Callable[[], int], draining: asyncio.Event) -> None:
        """Serves with what `main` wired together.

        Args:
            demand: What is wanted.
            slots_per_replica: Executions that one runner runs at once.
            draining: Set when the gateway stops: ends the streams.
        """
        self._demand = demand
        self._slots_per_replica = slots_per_replica
        self._draining = draining

    async def IsActive(self, request: pb.ScaledObjectRef, context: Any) -> pb.IsActiveResponse:
        """Whether there must be a runner at all."""
        _target(request, "")
        return pb.IsActiveResponse(result=self._demand.is_active)

    async def StreamIsActive(self, request: pb.ScaledObjectRef, context: Any) -> AsyncIterator[pb.IsActiveResponse]:
        """The same, pushed when it changes: the first request wakes runners without waiting for KEDA's next poll."""
        _target(request, "")
        async for active in self._demand.activity(self._draining):
            yield pb.IsActiveResponse(result=active)

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: Any) -> pb.GetMetricSpecResponse:
        """The metric's name, and how much of it one replica takes."""
        target = _target(request, "") or float(self._slots_per_replica())
        # The whole numbers, here and in GetMetrics, are what earlier versions of KEDA read.
        spec = pb.MetricSpec(metricName=METRIC, targetSize=max(1, round(target)), targetSizeFloat=target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> pb.GetMetricsResponse:
        """The metric now."""
        _target(request.scaledObjectRef, "scaledObjectRef.")
        if request.metricName != METRIC:
            raise InvalidArgument("metricName", f"there is only {METRIC!r}, not {request.metricName[:80]!r}")
        count = self._demand.count
        value = pb.MetricValue(metricName=METRIC, metricValue=count, metricValueFloat=float(count))
        return pb.GetMetricsResponse(metricValues=[value])
