"""Servers for tests, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ODD_SERVER = Path(__file__).parent / "odd_server.py"


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    health_port: int
    metrics_port: int
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


Start = Callable[..., Served]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def begin(variables: Mapping[str, str] | None = None, /, **settings: str) -> Served:
        endpoint, log = tmp_path / f"endpoint-{len(running)}.json", tmp_path / f"log-{len(running)}"
        own = {f"CODEALIGN_ODD_{key.upper()}": value for key, value in settings.items()}
        environment = {**os.environ, **own, **(variables or {}), "CODEALIGN_ODD_ENDPOINT_FILE": str(endpoint)}
        with log.open("wb") as stderr:
            process = subprocess.Popen([sys.executable, str(ODD_SERVER)], env=environment, stderr=stderr)
        running.append(process)
        deadline = time.monotonic() + 30
        while not endpoint.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.05)
        ports = json.loads(endpoint.read_text())
        return Served(process, ports["port"], ports["health_port"], ports["metrics_port"], log)

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()


def refusal(variables: Mapping[str, str] | None = None, /, *flags: str, **settings: str) -> str:
    own = {f"CODEALIGN_ODD_{key.upper()}": value for key, value in settings.items()}
    environment = {**os.environ, **own, **(variables or {})}
    ended = subprocess.run(
        [sys.executable, str(ODD_SERVER), *flags], env=environment, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("codealign-odd:")]
    return line
