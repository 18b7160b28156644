"""One service as a child process: start it, wait until it is ready, stop it, and read its last error from its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2

from codealign.cli.failures import Failure
from codealign.cli.home import Endpoint, Home
from codealign.common.clients import connect
from codealign.common.health import READINESS

_MAX_LOG_BYTES = 20 * 2**20
_TAIL_BYTES = 64 * 2**10
_POLL_SECONDS = 0.1

# Asks the kernel for a SIGTERM when the parent dies, then becomes the service. A separate program rather than a
# preexec_fn, because gRPC's threads in the parent make it unsafe to run Python between fork and exec.
_TETHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class ServiceSpec:
    """How to start a service."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Services that must start first because this one receives their addresses."""
    ready_seconds: float = 120.0
    """Timeout for becoming ready, in seconds."""
    package: str = ""
    """Package of the service, if not its name."""


class StartFailure(Failure):
    """A service did not become ready."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class Child:
    """Process of a service, including its restarts.

    Args:
        spec: How to start the service.
        home: Home directory for its endpoint file and log.
    """

    def __init__(self, spec: ServiceSpec, home: Home) -> None:
        self.spec = spec
        self.endpoint: Endpoint | None = None
        self._home = home
        self._log = home.log_file(spec.name)
        self._log_start = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.returncode is None

    async def start(self, addresses: Mapping[str, str]) -> None:
        """Start the process. On a restart it listens on the same port, which the other services know.

        Args:
            addresses: host:port of the services in `spec.needs`.
        """
        prefix = f"CODEALIGN_{(self.spec.package or self.spec.name).upper()}_"
        endpoint_file = self._home.endpoint_file(self.spec.name)
        environment = {
            **os.environ,
            prefix + "DRAIN_SECONDS": os.environ.get(prefix + "DRAIN_SECONDS", "8"),
            **self.spec.environment,
            **{f"{prefix}{name.upper()}_ADDRESS": addresses[name] for name in self.spec.needs},
            prefix + "ENDPOINT_FILE": str(endpoint_file.resolve()),
            "PYTHONUNBUFFERED": "1",
        }
        if self.endpoint is not None:
            environment[prefix + "PORT"] = str(self.endpoint.port)
        endpoint_file.unlink(missing_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > _MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid())),
                *self.spec.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                # A separate process group: the terminal's Ctrl-C reaches only the CLI, which stops services in order.
                process_group=0,
            )

    async def until_ready(self, on_state: Callable[[str], None] = lambda _: None) -> Endpoint:
        """Wait until the service is ready.

        Args:
            on_state: Called with the service's current activity.

        Raises:
            StartFailure: The service ended, or did not become ready in time.
        """
        started = time.monotonic()
        while True:
            if not self.alive:
                raise StartFailure(self.last_words(), self._process.returncode if self._process else None)
            endpoint = self._home.endpoint(self.spec.name)
            if endpoint is not None and await is_ready(endpoint.health_address):
                self.endpoint = endpoint
                self._tell_prometheus(endpoint)
                return endpoint
            if time.monotonic() - started > self.spec.ready_seconds:
                raise StartFailure(
                    f"{self.spec.name} is not ready after {self.spec.ready_seconds:.0f} s "
                    f"({self.state() or 'no output'}); log: {self._log}",
                    None,
                )
            on_state(self.state())
            await asyncio.sleep(_POLL_SECONDS)

    def _tell_prometheus(self, endpoint: Endpoint) -> None:
        labels = {"job": f"codealign-{self.spec.package or self.spec.name}"}
        target = {"targets": [f"{endpoint.host}:{endpoint.metrics_port}"], "labels": labels}
        file = self._home.scrape_file(self.spec.name)
        file.parent.mkdir(exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps([target]))
        partial.replace(file)

    async def wait(self) -> int:
        """Wait until the process ends, and return its exit code, negative for a signal."""
        assert self._process is not None
        code = await self._process.wait()
        self._clear()
        return code

    async def stop(self, seconds: float) -> None:
        """Send SIGTERM; after `seconds`, or when cancelled, send SIGKILL to the process group."""
        if not self.alive or self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        except asyncio.CancelledError:
            self.kill()
            raise
        self._clear()

    def kill(self) -> None:
        """Send SIGKILL to the process group immediately."""
        if self._process is not None and self._process.returncode is None:
            self._clear()

    def _clear(self) -> None:
        """Kill what is left of the process group, and let Prometheus forget the service."""
        self._home.scrape_file(self.spec.name).unlink(missing_ok=True)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def state(self) -> str:
        """Return the current activity, from the last line of the log."""
        lines = self._lines()
        return _event(lines[-1]) if lines else ""

    def last_words(self) -> str:
        """Return why the process ended, from its log: its ConfigurationError, otherwise its last error."""
        code = self._process.returncode if self._process else None
        lines = self._lines()
        own = [line for line in lines if line.startswith(f"codealign-{self.spec.package or self.spec.name}:")]
        if own:
            return own[-1]
        how = f"ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        error = _last_error(lines)
        said = f": {error}" if error else "" if lines else ": no output"
        return f"{self.spec.name} {how}{said} (log: {self._log})"

    def _lines(self) -> list[str]:
        """Return the last lines that this process has written."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]


def _last_error(lines: list[str]) -> str:
    """Return the last traceback line or error event, or "" if there is none."""
    for line in reversed(lines):
        if not line.startswith("{"):
            return line[:300]
        if any(f'"level": "{level}"' in line for level in ("error", "critical")):
            return _event(line)
    return ""


def _event(line: str) -> str:
    """Return a log line for display: the event and its reason if the line is structured."""
    try:
        content = json.loads(line)
    except ValueError:
        return line[:300]
    if not isinstance(content, dict) or "event" not in content:
        return line[:300]
    text = str(content["event"]).replace("_", " ")
    said = next((str(content[key]) for key in ("reason", "error", "message", "detail") if content.get(key)), "")
    if content["event"] == "readiness" and said:
        return said[:300]
    return f"{text}: {said}"[:300] if said else text[:300]


async def is_ready(health_address: str, timeout: float = 2.0) -> bool:
    """Return whether the service with this health address accepts work."""
    async with connect(health_address) as channel:
        try:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            answer = await check(health_pb2.HealthCheckRequest(service=READINESS), timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def service_command(package: str, python: str = sys.executable) -> tuple[str, ...]:
    """Return the command that starts a service package with this or another environment's interpreter."""
    return (python, "-m", f"codealign.{package}.main")
