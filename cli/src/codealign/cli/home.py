"""The folder in which one machine's services live: their data, where they listen, their logs, and who started them.

data/                what the dataset service keeps: the state
trainings/           what the training service keeps: checkpoints, and the models that came of them
reports/<run>.html   a page for each run
run/<service>.json   where a service listens, written by the service itself
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
"""With less than this no work is begun: SQLite and the logs would fail in the middle of it."""


@dataclass(frozen=True)
class Endpoint:
    """Where a service listens."""

    host: str
    port: int
    health_port: int
    metrics_port: int
    pid: int

    @property
    def address(self) -> str:
        """host:port of its gRPC server."""
        return f"{self.host}:{self.port}"

    @property
    def health_address(self) -> str:
        """host:port of its Health service."""
        return f"{self.host}:{self.health_port}"


class HomeInUse(Failure):
    """Another process starts services in this home."""

    def __init__(self, root: Path, pid: int) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{who} already runs the services of {root}: use them (every command does), stop that process, or choose "
            "another --home"
        )


@dataclass(frozen=True)
class Home:
    """One home folder."""

    root: Path

    @property
    def data(self) -> Path:
        """The dataset service's folder."""
        return self.root / "data"

    @property
    def trainings(self) -> Path:
        """The training service's folder."""
        return self.root / "trainings"

    @property
    def reports(self) -> Path:
        """Where the runs' pages go."""
        return self.root / "reports"

    def endpoint_file(self, service: str) -> Path:
        """Where a service writes its endpoint."""
        return self.root / "run" / f"{service}.json"

    def log_file(self, service: str) -> Path:
        """A service's log."""
        return self.root / "logs" / f"{service}.log"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            Failure: They cannot be made or written, or the disk is nearly full.
        """
        try:
            for folder in (self.data, self.root / "run", self.root / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / "run" / f"probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise Failure(
                f"cannot write the home folder {self.root} ({error.strerror}): choose another with --home"
            ) from None
        if free < LOW_DISK_BYTES:
            raise Failure(
                f"only {free / 2**20:.0f} MiB free on the disk of {self.root}, at least "
                f"{LOW_DISK_BYTES / 2**20:.0f} MiB needed: make room, or choose another --home"
            )

    def endpoint(self, service: str) -> Endpoint | None:
        """Where a service listens; None if it does not, or if the process that wrote the file is gone."""
        try:
            endpoint = Endpoint(**json.loads(self.endpoint_file(service).read_text()))
            os.kill(endpoint.pid, 0)
        except PermissionError:
            return endpoint  # somebody else's process, but it is there
        except (OSError, ValueError, TypeError):
            return None
        return endpoint

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one who starts services here.

        Raises:
            HomeInUse: Another process is.
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
