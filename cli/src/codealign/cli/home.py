"""The home directory of the services on one machine: data, endpoints, logs, and the lock of their starter.

data/                state of the dataset service
trainings/           state of the training service: checkpoints and trained models
reports/<run>.html   report page of each run
run/<service>.json   endpoint of a service, written by the service
run/lock             held by the process that starts the services
logs/<service>.log
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codealign.cli.failures import Failure

LOW_DISK_BYTES = 200 * 2**20
"""Free disk space required to start: with less, SQLite and the logs would fail in the middle of the work."""


@dataclass(frozen=True)
class Endpoint:
    """Addresses of a running service."""

    host: str
    port: int
    health_port: int
    metrics_port: int
    pid: int

    @property
    def address(self) -> str:
        """host:port of the gRPC server."""
        return f"{self.host}:{self.port}"

    @property
    def health_address(self) -> str:
        """host:port of the health service."""
        return f"{self.host}:{self.health_port}"


class HomeInUse(Failure):
    """Another process starts the services in this home directory."""

    def __init__(self, root: Path, pid: int) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{who} already runs the services of {root}: other commands use them automatically. To start new ones, "
            "stop that process or pass another --home"
        )


@dataclass(frozen=True)
class Home:
    """A home directory."""

    root: Path

    @property
    def data(self) -> Path:
        """Directory of the dataset service."""
        return self.root / "data"

    @property
    def trainings(self) -> Path:
        """Directory of the training service."""
        return self.root / "trainings"

    @property
    def reports(self) -> Path:
        """Directory of the runs' report pages."""
        return self.root / "reports"

    def endpoint_file(self, service: str) -> Path:
        """Return the file in which a service writes its endpoint."""
        return self.root / "run" / f"{service}.json"

    def scrape_file(self, service: str) -> Path:
        """Return the file that tells Prometheus where to scrape a service (`file_sd_configs`)."""
        return self.root / "run" / "prometheus" / f"{service}.json"

    def log_file(self, service: str) -> Path:
        """Return a service's log file."""
        return self.root / "logs" / f"{service}.log"

    def prepare(self) -> None:
        """Create the directories.

        Raises:
            Failure: The directories cannot be created or written, or the disk is nearly full.
        """
        try:
            for folder in (self.data, self.root / "run" / "prometheus", self.root / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / "run" / f"probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise Failure(
                f"cannot write the home directory {self.root} ({error.strerror}): pass another with --home"
            ) from None
        if free < LOW_DISK_BYTES:
            raise Failure(
                f"only {free / 2**20:.0f} MiB of disk space free in {self.root}, at least "
                f"{LOW_DISK_BYTES / 2**20:.0f} MiB required: free some space, or pass another --home"
            )

    def endpoint(self, service: str) -> Endpoint | None:
        """Return a service's endpoint, or None if it is not running."""
        try:
            endpoint = Endpoint(**json.loads(self.endpoint_file(service).read_text()))
            os.kill(endpoint.pid, 0)
        except PermissionError:
            return endpoint  # another user's process, but it exists
        except (OSError, ValueError, TypeError):
            return None
        return endpoint

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the process that starts the services.

        Raises:
            HomeInUse: Another process holds the lock.
        """
        self.prepare()
        with (self.root / "run" / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise HomeInUse(self.root, _pid_in(file.name)) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)


def _pid_in(name: str) -> int:
    text = Path(name).read_text().strip()
    return int(text) if text.isdigit() else 0
