"""Fixtures: a small service that behaves or misbehaves as a test asks, an in-memory store, and a pipeline."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.child import ServiceSpec
from codealign.cli.connection import Connection
from codealign.cli.family import is_record_id
from codealign.cli.home import Home
from codealign.common.clients import ClientTls
from codealign.common.interceptors import ServerInterceptor

SERVICE = """
import os, pathlib, signal, sys, time

name, behaviour = sys.argv[1:3]
if behaviour == "fails once" and not pathlib.Path(sys.argv[3]).exists():
    pathlib.Path(sys.argv[3]).touch()
    behaviour = "dies later"
if behaviour == "crashes":
    raise RuntimeError("no such database")
if behaviour == "misconfigured":
    print(f"codealign-{name}: CODEALIGN_{name.upper()}_SLOTS: must be positive", file=sys.stderr)
    sys.exit(2)
if behaviour == "silent":
    sys.exit(3)
if behaviour == "hangs":
    print("loading", flush=True)
    time.sleep(600)
if behaviour == "ignores SIGTERM":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

# Like codealign.common.server, but fast to start.
import json, socket, threading
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

prefix = f"CODEALIGN_{name.upper()}_"
pathlib.Path(sys.argv[4]).write_text(json.dumps({k: v for k, v in os.environ.items() if k.startswith(prefix)}))
if behaviour == "slow":
    time.sleep(1.0)
server = grpc.server(futures.ThreadPoolExecutor(2))
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = server.add_insecure_port(f"127.0.0.1:{os.environ.get(prefix + 'PORT', '0')}")
server.start()
servicer.set("readiness", health_pb2.HealthCheckResponse.SERVING)
endpoint = pathlib.Path(os.environ[prefix + "ENDPOINT_FILE"])
ports = {"port": port, "health_port": port, "metrics_port": 0, "pid": os.getpid()}
endpoint.with_suffix(".partial").write_text(json.dumps({"host": "127.0.0.1", **ports}))
endpoint.with_suffix(".partial").replace(endpoint)
if behaviour == "dies later":
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour != "ignores SIGTERM":
    signal.signal(signal.SIGTERM, lambda *_: (endpoint.unlink(missing_ok=True), os._exit(0)))
while True:
    time.sleep(0.05)
"""

REASONS = {
    "seeds": {
        "seed.no-return": "returns no value",
        "seed.unresolved-name": "needs a name that is defined elsewhere",
        "seed.forbidden-import": "imports a module for files, processes or plots",
    },
    "concepts": {"no-concepts": "not a list of short terms"},
    "instructions": {"empty": "came back empty"},
    "responses": {
        "cut-off": "reached the token limit before its end",
        "no-tests-section": "no tests follow the answer",
    },
    "execution": {"FAILED_ASSERTION": "an assertion failed"},
    "selection": {"dedup.near-code": "code nearly the same as another's"},
}


@pytest.fixture
def pipeline() -> api.Pipeline:
    """A pipeline as a coordinator describes it: seeds, three writing stages, execution, selection."""
    found = api.Pipeline(name="selfcodealign", description="A line.", few_shot_sets=["selfcodealign", "nano"])
    writing = {
        "concepts": (pb.KIND_CONCEPT_SET, {}),
        "instructions": (
            pb.KIND_INSTRUCTION,
            {"category": ["function", "class", "program"], "difficulty": ["easy", "medium", "hard"]},
        ),
        "responses": (pb.KIND_RESPONSE, {}),
    }
    parent = ""
    for name, role, makes in (
        ("seeds", api.STAGE_ROLE_SEEDS, pb.KIND_SEED),
        *((name, api.STAGE_ROLE_WRITING, makes) for name, (makes, _) in writing.items()),
        ("execution", api.STAGE_ROLE_EXECUTION, pb.KIND_VERDICT),
        ("selection", api.STAGE_ROLE_SELECTION, pb.KIND_EXAMPLE),
    ):
        stage = found.stages.add(
            name=name,
            role=role,
            parent="responses" if role == api.STAGE_ROLE_SELECTION else parent,
            makes=makes,
            title=f"Title of {name}",
            description=f"What {name} are for.",
            reasons=REASONS[name],
            version=1,
        )
        if role == api.STAGE_ROLE_WRITING:
            stage.defaults.CopyFrom(pb.StageSettings(stage=name, temperature=0.7, max_tokens=128, few_shots=8))
            stage.properties.extend(
                pb.PropertyDraw(name=one, values=values) for one, values in writing[name][1].items()
            )
        parent = name
    return found


class Store:
    """An in-memory dataset service behind a connection's calls."""

    def __init__(self, records: Iterable[pb.Record] = ()) -> None:
        self.clients = self.dataset = self
        self.records: dict[str, pb.Record] = {}
        self.members: dict[str, set[str]] = {}
        self.versions: list[ds.Version] = []
        self.calls: list[str] = []
        self.add(*records)

    def add(self, *records: pb.Record, collection: str = "") -> None:
        for record in records:
            self.records[record.id] = record
            self.members.setdefault(collection, set()).add(record.id)

    def __getattr__(self, name: str) -> str:
        return name  # a method of the service, by its name

    async def call(self, method: str, request: Any, timeout: float = 0) -> Any:
        self.calls.append(method)
        return getattr(self, f"_{method.lower()}")(request)

    async def scan(self, request: ds.ScanRequest) -> AsyncIterator[pb.Record]:
        self.calls.append("Scan")
        for record in self._scan(request).records:
            yield record

    def _member(self, record: pb.Record, collection: str) -> bool:
        return not collection or record.id in self.members.get(collection, ())

    def _scan(self, request: ds.ScanRequest) -> ds.ScanResponse:
        assert not request.parent_id or is_record_id(request.parent_id), "the service refuses other texts"
        found = [
            record
            for _, record in sorted(self.records.items())
            if record.kind == request.kind
            and self._member(record, request.collection)
            and (not request.parent_id or request.parent_id in record.parents)
        ]
        return ds.ScanResponse(records=found)

    def _get(self, request: ds.GetRequest) -> ds.GetResponse:
        assert len(request.ids) <= 1000
        if request.allow_prefix:
            found = [record for key, record in self.records.items() if key.startswith(request.ids[0])]
        else:
            found = [self.records[key] for key in request.ids if key in self.records]
        return ds.GetResponse(records=found)

    def _lineage(self, request: ds.LineageRequest) -> ds.LineageResponse:
        seen = [request.id]
        for current in seen:
            near: list[str] = []
            if request.direction == ds.DIRECTION_ANCESTORS:
                near = list(self.records[current].parents)
            else:
                near = [key for key, record in sorted(self.records.items()) if current in record.parents]
            seen += [
                key
                for key in near
                if key not in seen and key in self.records and self._member(self.records[key], request.collection)
            ]
        return ds.LineageResponse(records=[self.records[key] for key in seen])

    def _listversions(self, request: ds.ListVersionsRequest) -> ds.ListVersionsResponse:
        return ds.ListVersionsResponse(versions=self.versions)


@pytest.fixture
def store() -> Store:
    """An empty store."""
    return Store()


Fake = Callable[..., ServiceSpec]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A factory for service specifications: fake(name, behaviour, needs=..., ready_seconds=...)."""
    script = tmp_path / "service.py"
    script.write_text(SERVICE)

    def make(
        name: str, behaviour: str = "", *, needs: tuple[str, ...] = (), ready_seconds: float = 30.0
    ) -> ServiceSpec:
        flag, seen = tmp_path / f"{name}.flag", tmp_path / f"{name}.environment"
        command = (sys.executable, str(script), name, behaviour, str(flag), str(seen))
        return ServiceSpec(name, command, {}, needs, ready_seconds)

    return make


@pytest.fixture
def serving() -> Callable[..., Callable[..., contextlib.AbstractAsyncContextManager[Connection]]]:
    """A factory for connections to services that a test implements; each is a function that adds it to a server."""

    def make(
        **services: Callable[[grpc.aio.Server], None],
    ) -> Callable[..., contextlib.AbstractAsyncContextManager[Connection]]:
        @contextlib.asynccontextmanager
        async def connected(*_: object, **__: object) -> AsyncIterator[Connection]:
            server = grpc.aio.server(interceptors=[ServerInterceptor(60.0)])
            for add in services.values():
                add(server)
            address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            connection = Connection(dict.fromkeys(services, address), ClientTls(), started=False)
            try:
                yield connection
            finally:
                await connection.clients.close()
                await server.stop(0)

        return connected

    return make
