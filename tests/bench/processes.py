"""Services of this installation as processes that are measured, killed and restarted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from codealign.common.health import READINESS
from tests.ports import free_port

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")
_LOG_CHARACTERS = 4_000
_PACKAGES = {"training": "trainer"}


@dataclass(frozen=True)
class Usage:
    """Resource usage of a process."""

    processor_seconds: float = 0.0
    """User and system CPU seconds of all processes that ran under this name."""
    peak_bytes: int = 0
    """Peak resident memory of the processes of one start together."""


@dataclass
class Service:
    """A service on a fixed port.

    Args:
        name: "dataset", "inference", ...
        folder: Its log and its endpoint file lie there.
        settings: By their names in its `settings.py`.
        command: In place of the service's own program; it reads the same variables.
    """

    name: str
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    _health_port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None
    _ended: Usage = field(default_factory=Usage)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Everything that the service's processes have written."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Process id, or 0 if the process is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        """Start a process without waiting until it is ready."""
        package = _PACKAGES.get(self.name, self.name)
        prefix = f"CODEALIGN_{package.upper()}_"
        own = {"port": str(self.port), "health_port": str(self._health_port), "drain_seconds": "8", **self.settings}
        environment = {**os.environ, **{prefix + name.upper(): value for name, value in own.items()}}
        environment["PYTHONUNBUFFERED"] = "1"
        command = self.command or (sys.executable, "-m", f"codealign.{package}.main")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
            )

    def is_ready(self) -> bool:
        """Return whether the service accepts work."""
        with grpc.insecure_channel(f"127.0.0.1:{self._health_port}") as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer = check(health_pb2.HealthCheckRequest(service=READINESS), timeout=2)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def wait_ready(self) -> None:
        """Wait until the service accepts work.

        Raises:
            RuntimeError: The service ended or takes too long. The message has the end of its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready():
            if time.monotonic() > deadline or not self.pid:
                raise RuntimeError(f"{self.name} did not come up:\n{self.log.read_text()[-_LOG_CHARACTERS:]}")
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is running."""
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Send SIGKILL to the process and its children, and wait until they are gone."""
        if self._process is not None and self.pid:
            # Usage from here until the process ends is not counted.
            self._ended = self.usage()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_SECONDS)
        self._process = None

    def stop(self) -> None:
        """Stop the process gracefully."""
        if self._process is not None and self.pid:
            self._ended = self.usage()
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
                self._process = None
        self.kill()

    def usage(self) -> Usage:
        """Return the resource usage of its processes so far."""
        now = _usage(self.pid)
        return Usage(self._ended.processor_seconds + now.processor_seconds, max(self._ended.peak_bytes, now.peak_bytes))


def _usage(group: int) -> Usage:
    """Return the usage of a process group, or None if it has ended. See proc_pid_stat(5) and proc_pid_status(5).

    The group's number is its first process', so that what a service starts of its own counts too.
    """
    seconds, peak = 0.0, 0
    for folder in Path("/proc").glob("[0-9]*") if group else ():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) != group:
                continue
            status = (folder / "status").read_text()
        except OSError:
            continue  # it ended between the two
        seconds += sum(int(each) for each in fields[11:15]) / _TICKS
        peak += 1024 * next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return Usage(seconds, peak)
