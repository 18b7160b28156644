"""Health checks with separate liveness and readiness, on a plain-text port, because probes do not support TLS."""

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
    """Whether the server accepts work, and if not, why.

    The Health service answers for `liveness` (always SERVING, since a restart would not help) and `readiness`. The
    empty name and every gRPC service's name follow readiness.

    Attributes:
        draining: Set once the server begins to stop. Streams without an end of their own must end then; otherwise the
            server waits for them for the full grace period.
    """

    def __init__(self) -> None:
        self.ready = False
        self.reason = "starting"
        self.draining = asyncio.Event()
        self._servicer = HealthServicer()
        self._names = ["", READINESS]

    async def start(self, service_names: list[str]) -> None:
        """Start to answer for these services."""
        self._names += service_names
        await self._servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._publish()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the Health service."""
        add_HealthServicer_to_server(self._servicer, server)

    async def set(self, ready: bool, reason: str = "") -> None:
        """Set whether work is accepted. While draining, it stays off."""
        if self.draining.is_set() or (ready, reason) == (self.ready, self.reason):
            return
        self.ready, self.reason = ready, reason
        log.info("readiness", ready=ready, reason=reason)
        await self._publish()

    async def drain(self) -> None:
        """Turn readiness off permanently."""
        await self.set(False, "draining")
        self.draining.set()

    async def _publish(self) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if self.ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)
