"""KEDA's external scaler, answered from the current demand.

The interface is described at https://keda.sh/docs/latest/concepts/external-scalers/. The metric is the number of
executions that wait or run. KEDA sets the replicas to this number divided by the concurrent executions of one replica,
rounded up.
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
"""Key in a ScaledObject's trigger metadata: executions per replica. Default: the replica's slots."""


def _target(ref: pb.ScaledObjectRef, path: str) -> float | None:
    """Return the value in the trigger's metadata, or None if there is none.

    Raises:
        InvalidArgument: The value is not a positive number.
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
    """Implements KEDA's `externalscaler.ExternalScaler`.

    Args:
        demand: Current demand for executions.
        slots_per_replica: Returns the concurrent executions of one runner.
        draining: Set when the gateway stops, which ends the streams.
    """

    def __init__(self, demand: Demand, slots_per_replica: Callable[[], int], draining: asyncio.Event) -> None:
        self._demand = demand
        self._slots_per_replica = slots_per_replica
        self._draining = draining

    async def IsActive(self, request: pb.ScaledObjectRef, context: Any) -> pb.IsActiveResponse:
        """Return whether any runner is required."""
        _target(request, "")
        return pb.IsActiveResponse(result=self._demand.is_active)

    async def StreamIsActive(self, request: pb.ScaledObjectRef, context: Any) -> AsyncIterator[pb.IsActiveResponse]:
        """Push the same answer when it changes, so that a first request need not wait for KEDA's next poll."""
        _target(request, "")
        async for active in self._demand.activity(self._draining):
            yield pb.IsActiveResponse(result=active)

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: Any) -> pb.GetMetricSpecResponse:
        """Return the metric's name and its target value per replica."""
        target = _target(request, "") or float(self._slots_per_replica())
        # Older versions of KEDA read the integers, here and in GetMetrics.
        spec = pb.MetricSpec(metricName=METRIC, targetSize=max(1, round(target)), targetSizeFloat=target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> pb.GetMetricsResponse:
        """Return the current value of the metric."""
        _target(request.scaledObjectRef, "scaledObjectRef.")
        if request.metricName != METRIC:
            raise InvalidArgument(
                "metricName", f"unknown metric {request.metricName[:80]!r}; the only one is {METRIC!r}"
            )
        count = self._demand.count
        value = pb.MetricValue(metricName=METRIC, metricValue=count, metricValueFloat=float(count))
        return pb.GetMetricsResponse(metricValues=[value])
