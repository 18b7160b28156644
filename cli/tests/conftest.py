"""A small service, started like a real one, that behaves or misbehaves as a test asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from codealign.cli.child import ServiceSpec
from codealign.cli.home import Home

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

# What codealign.common.server does, without what makes its start slow.
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

Fake = Callable[..., ServiceSpec]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """fake(name, behaviour, needs=..., ready_seconds=...) is a service's specification."""
    script = tmp_path / "service.py"
    script.write_text(SERVICE)

    def make(
        name: str, behaviour: str = "", *, needs: tuple[str, ...] = (), ready_seconds: float = 30.0
    ) -> ServiceSpec:
        flag, seen = tmp_path / f"{name}.flag", tmp_path / f"{name}.environment"
        command = (sys.executable, str(script), name, behaviour, str(flag), str(seen))
        return ServiceSpec(name, command, {}, needs, ready_seconds)

    return make
