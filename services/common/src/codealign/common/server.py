"""Starts and stops every CodeAlign server.

    serve("sandbox", SandboxSettings, build)

`build(settings, readiness)` is an async context manager: it opens what the service needs, yields its registrations,
and closes everything when the server has stopped.

Shutdown (SIGTERM or SIGINT) happens in this order. Readiness goes off first, so that nobody sends new work. The server
stops accepting calls, and in-flight calls get `drain_seconds`. Then the context of `build` exits and hands back
unfinished work. The health port closes last, because a failing probe would get the process killed while it drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_reflection.v1alpha import reflection

from codealign.common import access, logs, metrics, tls, traces
from codealign.common.access import ALL, Access, Callers
from codealign.common.errors import EXIT_CONFIGURATION, ConfigurationError
from codealign.common.health import Readiness
from codealign.common.interceptors import ServerInterceptor
from codealign.common.settings import ServerSettings, load

__all__ = ["ALL", "Callers", "Readiness", "Registration", "serve"]

SettingsT = TypeVar("SettingsT", bound=ServerSettings)
log = logs.get_logger(__name__)

MIN_PING_INTERVAL_MS = 5_000
"""Minimum interval of client pings: half of `clients.KEEPALIVE_MS`."""
KEEPALIVE_MS = 30_000
"""Interval of the server's pings on a client connection."""
KEEPALIVE_TIMEOUT_MS = 15_000
"""A ping without a reply for this long ends the connection, and with it the client's calls."""
MAX_ARRIVED_CALLS = 100_000
"""Calls that have arrived and that the server has not begun, after which it drops some."""
MAX_ARRIVED_SECONDS = 600
"""How long such a call waits before the server drops it."""


@dataclass(frozen=True)
class Registration:
    """One gRPC service of a server.

    Raises:
        ValueError: `callers` names a caller or a method that does not exist.
    """

    full_name: str
    """Full name, such as `codealign.api.sandbox.v1.SandboxService`."""
    add: Callable[[Any, grpc.aio.Server], None]
    """The generated `add_..Servicer_to_server`."""
    servicer: object
    """Implementation of the service."""
    callers: Callers
    """Who may call which methods, by common name. With mutual TLS, all other calls are refused."""

    def __post_init__(self) -> None:
        access.check(self.full_name, self.callers)


Build = Callable[[SettingsT, Readiness], AbstractAsyncContextManager[Sequence[Registration]]]


def serve(
    service: str, settings_class: type[SettingsT], build: Build[SettingsT], traced_parts: Sequence[str] = ()
) -> None:
    """Run the server until it is stopped. Exits with code 2 if it cannot start.

    Args:
        service: Short name for logs, such as "sandbox".
        settings_class: Class of the settings, which are read from the environment and the command line.
        build: Opens the service and yields its registrations.
        traced_parts: Parts without a network whose spans this server exports.
    """
    try:
        settings = load(settings_class, f"codealign-{service}")
        logs.configure(service, settings.log_level, settings.log_format)
        stop_traces = traces.configure(service, traced_parts)
        try:
            asyncio.run(_run(service, settings, build))
        finally:
            stop_traces()
    except ConfigurationError as error:
        print(f"codealign-{service}: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)


async def _run(service: str, settings: SettingsT, build: Build[SettingsT]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    credentials = tls.server_credentials(settings)
    readiness = Readiness()
    health_server = grpc.aio.server()
    readiness.add_to(health_server)
    health_port = _bind(health_server, settings.host, settings.health_port, "health_port", None)
    await readiness.start([])
    await health_server.start()
    metrics_port = metrics.serve(settings.host, settings.metrics_port)
    try:
        async with _until_stopped(build(settings, readiness), stop) as registrations:
            if registrations is None:
                return
            server = grpc.aio.server(
                interceptors=[ServerInterceptor(settings.max_deadline_seconds, _access(settings, registrations))],
                options=[
                    ("grpc.max_send_message_length", settings.max_message_bytes),
                    ("grpc.max_receive_message_length", settings.max_message_bytes),
                    ("grpc.so_reuseport", 0),
                    # Clients with mostly silent calls check that the server is alive. The server pings them too, so
                    # that their calls end when their node has failed.
                    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                    ("grpc.http2.max_pings_without_data", 0),
                    ("grpc.keepalive_permit_without_calls", 1),
                    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
                    # gRPC drops calls at random, with CANCELLED, when more than 1,000 have arrived and are not begun,
                    # and each after 30 seconds. Callers would not repeat them; services refuse work themselves.
                    ("grpc.server.max_pending_requests", MAX_ARRIVED_CALLS),
                    ("grpc.server.max_pending_requests_hard_limit", MAX_ARRIVED_CALLS),
                    ("grpc.server_max_unrequested_time_in_server", MAX_ARRIVED_SECONDS),
                ],
            )
            names = [registration.full_name for registration in registrations]
            for registration in registrations:
                registration.add(registration.servicer, server)
            readiness.add_to(server)
            reflection.enable_server_reflection([*names, reflection.SERVICE_NAME, "grpc.health.v1.Health"], server)
            port = _bind(server, settings.host, settings.port, "port", credentials)
            await server.start()
            await readiness.start(names)
            if readiness.reason == "starting":
                await readiness.set(True)
            endpoints = {"port": port, "health_port": health_port, "metrics_port": metrics_port, "pid": os.getpid()}
            log.info("listening", host=settings.host, **endpoints)
            with _endpoint_file(settings.endpoint_file, {"host": settings.host, **endpoints}):
                await stop.wait()
                await readiness.drain()
                log.info("draining", seconds=settings.drain_seconds)
                await server.stop(settings.drain_seconds)
    finally:
        await health_server.stop(None)
    log.info("stopped", service=service)


@contextlib.asynccontextmanager
async def _until_stopped(built: AbstractAsyncContextManager[Sequence[Registration]], stop: asyncio.Event) -> Any:
    """Enter `built`, or return None if a stop is requested while it is still starting (loading a model takes long)."""
    enter = asyncio.ensure_future(built.__aenter__())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({enter, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not enter.done():
        enter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await enter
        yield None
        return
    stopped.cancel()
    registrations = enter.result()
    try:
        yield registrations
    except BaseException:
        if not await built.__aexit__(*sys.exc_info()):
            raise
    else:
        await built.__aexit__(None, None, None)


def _bind(
    server: grpc.aio.Server, host: str, port: int, setting: str, credentials: grpc.ServerCredentials | None
) -> int:
    # gRPC's own error for a port in use names neither the setting nor the reason.
    if port:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ConfigurationError(
                    f"{setting}={port}: cannot listen on {host}:{port} ({error.strerror}); stop what uses the port, or "
                    f"choose another {setting} (0: any free port)"
                ) from None
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigurationError(f"{setting}={port}: cannot listen on {address}: {error}") from None
    return int(bound)


def _access(settings: ServerSettings, registrations: Sequence[Registration]) -> Access | None:
    """Return the access lists, or None without mutual TLS, where callers have no names."""
    if settings.tls_client_ca_file is None:
        return None
    lists = {registration.full_name: registration.callers for registration in registrations}
    return Access({**lists, reflection.SERVICE_NAME: access.REFLECTION})


@contextlib.contextmanager
def _endpoint_file(path: Path | None, content: dict[str, object]) -> Any:
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
