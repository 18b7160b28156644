"""A dataset service, a coordinator, a simulated engine and an instant sandbox as processes, and seeds."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.cli.run_config import RunChoices, run_config
from codealign.cli.seeds import seed_record
from codealign.inference.engines.simulated import program
from codealign.inference.engines.simulated.draws import Draws
from codealign.inference.engines.simulated.words import ADJECTIVES, NOUNS, VERBS
from services.dataset.tests.conftest import Postgres, _postgres_bin
from tests.bench.processes import Service
from tests.ports import free_port

ENDED = frozenset({pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED, pb.RUN_STATE_PAUSED})
COLLECTION = "simulated-seeds"
SQLITE, POSTGRESQL = DATABASES = ("sqlite", "postgresql")
_BATCH = 500
_MESSAGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_INSTANT = (sys.executable, "-m", "tests.bench.instant_sandbox")


def seed(number: int, seed: int = 0) -> pb.Seed:
    """Return a unique documented function."""
    draws = Draws("seed", seed, number)
    words = [draws.pick(choices) for choices in (VERBS, ADJECTIVES, NOUNS, NOUNS)]
    made = program.draw(draws, f"{'_'.join(words)}_{number}")
    text = " ".join(draws.pick(draws.pick((VERBS, ADJECTIVES, NOUNS))) for _ in range(10)).capitalize() + "."
    return pb.Seed(code=made.code(text, "passed") + "\n", name=made.name, docstring=text, path="simulated.py", line=1)


@dataclass
class Scene:
    """The services, in start order.

    Args:
        folder: Data and logs.
        database_url: Of the dataset service. Empty: SQLite in the folder.
        dataset: More settings of that service; likewise the others.
        sandbox_command: In place of the sandbox that answers at once; () is the product's own.
        between: host:port that the coordinator is given in place of a service's own address.
    """

    folder: Path
    database_url: str = ""
    dataset: Mapping[str, str] = field(default_factory=dict)
    coordinator: Mapping[str, str] = field(default_factory=dict)
    inference: Mapping[str, str] = field(default_factory=dict)
    sandbox: Mapping[str, str] = field(default_factory=dict)
    sandbox_command: tuple[str, ...] = _INSTANT
    ports: Mapping[str, int] = field(default_factory=dict)
    between: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = {"data_dir": str(self.folder / "data"), "database_url": self.database_url}
        engine = {"engine": "simulated", "model": "nano", "simulated_speed": "0", "slots": "64"}
        self.services = {
            "dataset": self._service("dataset", {**data, **self.dataset}),
            "inference": self._service("inference", {**engine, **self.inference}),
            "sandbox": self._service("sandbox", self.sandbox, self.sandbox_command),
        }
        addresses = {f"{name}_address": self.between.get(name, each.address) for name, each in self.services.items()}
        own = {**addresses, "lease_holder": "measured", **self.coordinator}
        self.services["coordinator"] = self._service("coordinator", own)

    def _service(self, name: str, settings: Mapping[str, str], command: tuple[str, ...] = ()) -> Service:
        port = self.ports.get(name) or free_port()
        return Service(name, self.folder / "logs", settings, command, port)

    @contextlib.contextmanager
    def up(self) -> Iterator[Scene]:
        """Run the services for the duration of the context."""
        try:
            for name in ("dataset", "inference", "sandbox"):
                self.services[name].start()
            for name in ("dataset", "inference", "sandbox"):
                self.services[name].wait_ready()
            self.services["coordinator"].start()
            self.services["coordinator"].wait_ready()
            yield self
        finally:
            for service in reversed(self.services.values()):
                service.stop()

    @contextlib.contextmanager
    def stubs(self) -> Iterator[tuple[CoordinatorServiceStub, DatasetServiceStub]]:
        """Return clients with direct connections to the services."""
        with contextlib.ExitStack() as stack:
            channels = [
                stack.enter_context(grpc.insecure_channel(self.services[name].address, options=_MESSAGE))
                for name in ("coordinator", "dataset")
            ]
            yield CoordinatorServiceStub(channels[0]), DatasetServiceStub(channels[1])


@dataclass(frozen=True)
class Database:
    """Where records are stored."""

    url: str = ""
    """Empty: SQLite, in a file of the scene's directory."""
    server: Postgres | None = None


@contextlib.contextmanager
def empty_database(name: str) -> Iterator[Database]:
    """Provide an empty database that is removed afterwards.

    PostgreSQL runs without fsync, on a Unix socket.

    Args:
        name: One of `DATABASES`.

    Raises:
        RuntimeError: PostgreSQL is not installed, or the schema cannot be created.
    """
    if name == SQLITE:
        yield Database()
        return
    programs = _postgres_bin()
    if programs is None:
        raise RuntimeError("no initdb and pg_ctl on PATH or in /usr/lib/postgresql/*/bin: leave postgresql out")
    server = Postgres(programs)
    try:
        server.prepare()
        migrate = [sys.executable, "-m", "codealign.dataset.main", "migrate"]
        environment = {**os.environ, "CODEALIGN_DATASET_DATABASE_URL": server.url}
        made = subprocess.run(migrate, env=environment, capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"{' '.join(migrate[1:])}: {made.stderr}")
        yield Database(server.url, server)
    finally:
        server.remove()


def store_seeds(dataset: DatasetServiceStub, count: int, make: Callable[[int], pb.Seed] = seed) -> None:
    """Append this number of seeds to `COLLECTION`; `make` returns each by its number."""
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        records = [seed_record(make(number)) for number in numbers]
        dataset.Append(ds.AppendRequest(records=records, collection=COLLECTION), timeout=300)


def pipeline_of(coordinator: CoordinatorServiceStub, name: str = "") -> api.Pipeline:
    """Return a pipeline as the coordinator describes it. Empty: its default."""
    return coordinator.GetPipeline(api.GetPipelineRequest(name=name), timeout=30).pipeline


def run_of(preset: str, pipeline: api.Pipeline, run_seed: int = 0) -> pb.Run:
    """Return a preset's run over `COLLECTION`."""
    return run_config(RunChoices(name="simulated", seed=run_seed, preset=preset), COLLECTION, "", pipeline)


def follow(
    coordinator: CoordinatorServiceStub, run: str, every: float, limit: float, look: Callable[[], None] | None = None
) -> api.RunStatus:
    """Wait until the run has ended and return it, tolerating an unreachable coordinator.

    Args:
        coordinator: Where it runs.
        run: Its id.
        every: Seconds between two looks.
        limit: Seconds in all.
        look: Called before each look.

    Raises:
        TimeoutError: The run has not ended within the limit.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if look is not None:
            look()
        with contextlib.suppress(grpc.RpcError):
            status = coordinator.GetRun(api.GetRunRequest(run=run), timeout=30).run
            if status.state in ENDED:
                return status
        time.sleep(every)
    raise TimeoutError(f"run {run} has not ended after {limit:.0f} s")
