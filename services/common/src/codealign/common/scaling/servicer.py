"""KEDA's external scaler, answered from the current demand.

The interface is described at https://keda.sh/docs/latest/concepts/external-scalers/. KEDA sets the replicas to the
metric's value divided by its target per replica, rounded up.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from externalscaler import externalscaler_pb2 as pb
from externalscaler import externalscaler_pb2_grpc as rpc

from codealign.common.errors import InvalidArgument
from codealign.common.scaling.demand import Demand

SERVICE = "externalscaler.ExternalScaler"


class Trigger:
    """The metadata of a ScaledObject's trigger.

    Args:
        metadata: Texts by key.
        path: Path of the trigger in the request, for errors.
    """

    def __init__(self, metadata: Mapping[str, str], path: str = "") -> None:
        self._metadata = metadata
        self._path = path

    def positive(self, key: str, default: float) -> float:
        """Return the number of a key, or the default if there is none.

        Raises:
            InvalidArgument: It is not a positive number.
        """
        text = self._metadata.get(key, "")
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise InvalidArgument(f"{self._path}scalerMetadata.{key}", f"must be a positive number, got {text[:40]!r}")
        return value


class Scale(Protocol):
    """A metric by which replicas are scaled."""

    metric: str
    """Its name."""

    def target(self, trigger: Trigger) -> float:
        """Return the metric's value per replica. Raises `InvalidArgument` for wrong metadata."""

    def value(self, trigger: Trigger) -> float:
        """Return the metric's current value. Raises `InvalidArgument` for wrong metadata."""


class ScalerServicer(rpc.ExternalScalerServicer):
    """Implements KEDA's `externalscaler.ExternalScaler`.

    Args:
        scale: The metric.
        demand: Says whether any replica is required.
        draining: Set when the server stops, which ends the streams.
    """

    def __init__(self, scale: Scale, demand: Demand, draining: asyncio.Event) -> None:
        self._scale = scale
        self._demand = demand
        self._draining = draining

    async def IsActive(self, request: pb.ScaledObjectRef, context: Any) -> pb.IsActiveResponse:
        """Return whether any replica is required."""
        self._scale.target(Trigger(request.scalerMetadata))
        return pb.IsActiveResponse(result=self._demand.is_active)

    async def StreamIsActive(self, request: pb.ScaledObjectRef, context: Any) -> AsyncIterator[pb.IsActiveResponse]:
        """Push the same answer when it changes, so that a first request need not wait for KEDA's next poll."""
        self._scale.target(Trigger(request.scalerMetadata))
        async for active in self._demand.activity(self._draining):
            yield pb.IsActiveResponse(result=active)

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: Any) -> pb.GetMetricSpecResponse:
        """Return the metric's name and its target value per replica."""
        target = self._scale.target(Trigger(request.scalerMetadata))
        # Older versions of KEDA read the integers, here and in GetMetrics.
        spec = pb.MetricSpec(metricName=self._scale.metric, targetSize=max(1, round(target)), targetSizeFloat=target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> pb.GetMetricsResponse:
        """Return the current value of the metric."""
        value = self._scale.value(Trigger(request.scaledObjectRef.scalerMetadata, "scaledObjectRef."))
        metric = self._scale.metric
        if request.metricName != metric:
            raise InvalidArgument(
                "metricName", f"unknown metric {request.metricName[:80]!r}; the only one is {metric!r}"
            )
        found = pb.MetricValue(metricName=metric, metricValue=math.ceil(value), metricValueFloat=value)
        return pb.GetMetricsResponse(metricValues=[found])
