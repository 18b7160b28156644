"""A real gateway with real gVisor runners, shared by all tests of this folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub

# Kept between sessions: holds the runsc binary, so that it is downloaded once.
CACHE = Path(tempfile.gettempdir()) / f"codealign-tests-{os.getuid()}"


class Gateway:
    """A gateway process and a client of it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._endpoint = folder / "endpoint.json"
        self.log = folder / "log"
        environment = {
            **os.environ,
            "CODEALIGN_SANDBOX_CACHE_DIR": str(CACHE),
            "CODEALIGN_SANDBOX_ENDPOINT_FILE": str(self._endpoint),
            "CODEALIGN_SANDBOX_DRAIN_SECONDS": "5",
            # Both executions in one sandbox: only namespaces isolate them from each other there.
            "CODEALIGN_SANDBOX_RUNNERS": "1",
            "CODEALIGN_SANDBOX_SLOTS": "2",
        }
        environment.update({f"CODEALIGN_SANDBOX_{name.upper()}": value for name, value in settings.items()})
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "codealign.sandbox.main"], env=environment, stderr=log, stdout=log
            )
        self.channel: grpc.Channel | None = None

    def connect(self) -> SandboxServiceStub:
        self._until(self._endpoint.exists, 60)
        self.channel = self.open_channel()
        self.stub = SandboxServiceStub(self.channel)
        return self.stub

    def port(self, name: str = "port") -> int:
        """Return the gRPC port, or the port with this name in the endpoint file."""
        return int(json.loads(self._endpoint.read_text())[name])

    def open_channel(self) -> grpc.Channel:
        """Open a separate connection."""
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return grpc.insecure_channel(f"127.0.0.1:{self.port()}", options=options)

    def wait_ready(self) -> None:
        self._until(lambda: self.capacity().slots > 0, 60)

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"the gateway did not come up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def children(self) -> list[int]:
        """Return the runsc processes that the gateway started."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, rest = stat.parent.name, stat.read_text().rpartition(")")[2].split()
                if int(rest[1]) == self.process.pid and rest[0] != "Z":
                    found.append(int(pid))
        return found

    def tree(self) -> list[int]:
        """Return the runsc processes and all their descendants."""
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(stat.parent.name))
        found = self.children()
        for pid in found:
            found += children.get(pid, [])
        return found

    def capacity(self) -> pb.GetCapacityResponse:
        return self.stub.GetCapacity(pb.GetCapacityRequest(), timeout=10)

    def stop(self) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def run(self, code: str, tests: str = "", **rest: Any) -> pb.Result:
        """Execute with the limits and other fields of a request as keywords."""
        return self.stub.Execute(request(code, tests, **rest), timeout=60).result


def request(
    code: str,
    tests: str = "",
    *,
    stdin: bytes = b"",
    expected: str | None = None,
    files: dict[str, bytes] | None = None,
    runs: int = 0,
    request_id: str = "",
    **limits: Any,
) -> pb.ExecuteRequest:
    program = pb.Program(code=code, tests=tests, stdin=stdin)
    if expected is not None:
        program.expected_output = expected
    for path, content in (files or {}).items():
        program.files.add(path=path, content=content)
    return pb.ExecuteRequest(program=program, limits=pb.Limits(**limits), runs=runs, request_id=request_id)


def identifies_verdicts(runner: pb.Runner) -> bool:
    """Return whether a runner reports everything in a verdict's identity: file system, interpreter, resolved limits."""
    named = [each.profile for each in runner.profile_limits]
    fields = pb.Limits.DESCRIPTOR.fields
    return (
        bool(runner.image_digest)
        and runner.python_version.count(".") == 2
        and bool(named)
        and named == list(runner.profiles)
        and all(
            0 < getattr(each.defaults, field.name) <= getattr(each.maxima, field.name)
            for each in runner.profile_limits
            for field in fields
        )
    )


@contextlib.contextmanager
def running(folder: Path, **settings: str) -> Iterator[Gateway]:
    gateway = Gateway(folder, **settings)
    try:
        gateway.connect()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway")) as started:
        started.wait_ready()
        yield started


@pytest.fixture
def sound(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway; after the test, an ordinary program must still get its verdict, in every slot."""
    yield gateway
    for _ in range(2):
        assert name_of(gateway.run("def f(x): return x + 1", "assert f(1) == 2")) == "PASSED"


def name_of(result: pb.Result) -> str:
    return pb.Verdict.Name(result.verdict).removeprefix("VERDICT_")
