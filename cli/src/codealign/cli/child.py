"""One service as a child process: started, waited for, stopped, and its last words read from its log."""

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

EXIT_CONFIGURATION = 2
"""A service's exit code when starting it again would end the same way."""

_MAX_LOG_BYTES = 20 * 2**20
_TAIL_BYTES = 64 * 2**10
_POLL_SECONDS = 0.1

# Becomes the service, after it has asked the kernel for a SIGTERM when its parent dies. A program of its own and not
# a preexec_fn, because gRPC's threads in the parent make running Python between fork and exec unsafe.
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
    """How a service is started."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Services whose addresses it gets, so that they come first."""
    ready_seconds: float = 120.0
    """Longer than this it may not take to be ready."""
    package: str = ""
    """The package that serves it, where that is not its name."""


class StartFailure(Failure):
    """A service did not become ready."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class Child:
    """A service's process, and the next one after it has died.

    Args:
        spec: How to start it.
        home: Where its endpoint file and its log go.
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
        """Its process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self, addresses: Mapping[str, str]) -> None:
        """Start the process; on a further start it listens where it did before, since others know it there.

        Args:
            addresses: host:port of the services that it needs.
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
                # A group of its own: the terminal's Ctrl-C reaches us alone, and we stop it in order.
                process_group=0,
            )

    async def until_ready(self, on_state: Callable[[str], None] = lambda _: None) -> Endpoint:
        """Wait until its readiness is on.

        Args:
            on_state: Called with what the service is doing.

        Raises:
            StartFailure: It ended, or it took too long.
        """
        started = time.monotonic()
        while True:
            if not self.alive:
                raise StartFailure(self.last_words(), self._process.returncode if self._process else None)
            endpoint = self._home.endpoint(self.spec.name)
            if endpoint is not None and await is_ready(endpoint.health_address):
                self.endpoint = endpoint
                return endpoint
            if time.monotonic() - started > self.spec.ready_seconds:
                raise StartFailure(
                    f"{self.spec.name} is not ready after {self.spec.ready_seconds:.0f} s "
                    f"({self.state() or 'no word from it'}); its log: {self._log}",
                    None,
                )
            on_state(self.state())
            await asyncio.sleep(_POLL_SECONDS)

    async def wait(self) -> int:
        """Wait until it ends; its exit code, negative for a signal."""
        assert self._process is not None
        code = await self._process.wait()
        self._clear_group()
        return code

    async def stop(self, seconds: float) -> None:
        """SIGTERM; after so many seconds, or when this is cancelled, SIGKILL to it and what it started."""
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
        self._clear_group()

    def kill(self) -> None:
        """SIGKILL to it and what it started, at once."""
        if self._process is not None and self._process.returncode is None:
            self._clear_group()

    def _clear_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def state(self) -> str:
        """What it does, by the last line of its log."""
        lines = self._lines()
        return _event(lines[-1]) if lines else ""

    def last_words(self) -> str:
        """Why it ended, by its log: the line of a ConfigurationError, else the last error."""
        code = self._process.returncode if self._process else None
        lines = self._lines()
        own = [line for line in lines if line.startswith(f"codealign-{self.spec.package or self.spec.name}:")]
        if own:
            return own[-1]
        how = f"ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        error = _last_error(lines)
        said = f": {error}" if error else "" if lines else ": it printed nothing"
        return f"{self.spec.name} {how}{said} (log: {self._log})"

    def _lines(self) -> list[str]:
        """The end of what this process has written."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]


def _last_error(lines: list[str]) -> str:
    """The last line of a traceback, or the last event of an error; empty: neither is there."""
    for line in reversed(lines):
        if not line.startswith("{"):
            return line[:300]
        if any(f'"level": "{level}"' in line for level in ("error", "critical")):
            return _event(line)
    return ""


def _event(line: str) -> str:
    """A log line for a person: of a structured one the event and its reason."""
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
    """Whether the service that answers there takes work."""
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
    """The command that starts a service of this installation, by this or another environment's interpreter."""
    return (python, "-m", f"codealign.{package}.main")
