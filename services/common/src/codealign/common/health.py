"""Health with liveness and readiness apart, on a plain port of its own, since probes speak no TLS."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from codealign.common.logs import get_logger

LIVENESS = "liveness"
READINESS = "readiness"

log = get_logger(__name__)


class Readiness:
    """Whether the server takes work, and why not.

    The Health service answers for `liveness` (SERVING from the first moment: a restart would not help),
    `readiness`, and the empty name and every gRPC service's name, which follow readiness.

    Attributes:
        draining: Set for good when the server begins to stop: a stream that has no end of its own ends then, else
            the server would wait for it as long as it may.
    """

    def __init__(self) -> None:
        self.ready = False
        self.reason = "starting"
        self.draining = asyncio.Event()
        self._servicer = HealthServicer()
        self._names = ["", READINESS]

    async def start(self, service_names: list[str]) -> None:
        """Begin to answer for these services."""
        self._names += service_names
        await self._servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._publish()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the Health service."""
        add_HealthServicer_to_server(self._servicer, server)

    async def set(self, ready: bool, reason: str = "") -> None:
        """Say whether work is taken; once draining, it stays off."""
        if self.draining.is_set() or (ready, reason) == (self.ready, self.reason):
            return
        self.ready, self.reason = ready, reason
        log.info("readiness", ready=ready, reason=reason)
        await self._publish()

    async def drain(self) -> None:
        """Off for good."""
        await self.set(False, "draining")
        self.draining.set()

    async def _publish(self) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if self.ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)
