"""Services as separate processes, each on a free loopback port."""

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
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

# Kept between sessions because it holds the downloaded runsc binary.
CACHE = Path(tempfile.gettempdir()) / f"codealign-tests-{os.getuid()}"
REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 120


class Service:
    """A service's process."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._endpoint = folder / "endpoint.json"
        self._endpoint.unlink(missing_ok=True)
        self.log = folder / "log"
        given = {"ENDPOINT_FILE": str(self._endpoint), "DRAIN_SECONDS": "5", **environment}
        variables = {f"CODEALIGN_{name.upper()}_{key}": value for key, value in given.items()}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"codealign.{name}.main"],
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
            )

    @property
    def address(self) -> str:
        """host:port, once the service listens."""
        deadline = time.monotonic() + START_SECONDS
        while not self._endpoint.exists():
            late = time.monotonic() > deadline
            if late or self.process.poll() is not None:
                pytest.fail(f"a service did not come up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        return f"127.0.0.1:{json.loads(self._endpoint.read_text())['port']}"

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        """Send SIGTERM and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        if self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def _running(name: str, folder: Path, **environment: str) -> Iterator[Service]:
    service = Service(name, folder, environment)
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="session")
def running() -> Callable[..., AbstractContextManager[Service]]:
    """A context manager that runs a service: `with running("dataset", folder, DATA_DIR=...) as service:`."""
    return _running


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway over real gVisor."""
    settings = {"CACHE_DIR": str(CACHE), "RUNNERS": str(min(2, os.cpu_count() or 1)), "SLOTS": "1"}
    with _running("sandbox", tmp_path_factory.mktemp("sandbox"), **settings) as service:
        yield service.address


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """Directory of the published benchmarks; tests are skipped without it."""
    given = os.environ.get("CODEALIGN_BENCHMARK_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no benchmark files: set CODEALIGN_BENCHMARK_DATA to a folder with EvalPlus' files")
    return folder
