"""Services on one machine, started as by a user, on recorded completions."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.commands import command
from tests.e2e.recorded import RECORDING, Seeds, write_seeds

SERVICES = ("dataset", "sandbox", "inference", "coordinator", "training")


@contextlib.contextmanager
def _services_up(home: Path, *options: str) -> Iterator[None]:
    up = command(home, "up", *(options or ("--engine", "replay", "--recording", str(RECORDING))))
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen(up, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while not all((home / "run" / f"{name}.json").exists() for name in SERVICES):
            assert process.poll() is None, (home / "up.log").read_text()
            assert time.monotonic() < deadline, "the services did not come up"
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="session")
def services_up() -> Callable[..., AbstractContextManager[None]]:
    """A context manager that runs every service in a home directory: `with services_up(home, "--model", model):`.

    Without options of `codealign up`, the model is the recording.
    """
    return _services_up


@pytest.fixture(scope="session")
def recorded_seeds(tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    return write_seeds(tmp_path_factory.mktemp("recorded") / "seeds")
