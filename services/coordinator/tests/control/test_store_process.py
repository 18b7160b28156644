"""Controllers over the real dataset service, whose process is stopped and killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.clients import Addresses, Clients
from codealign.common.errors import CodeAlignError
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.control import Controllers
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.remote import remote
from fakes.coordinators import Steps

LEASE_SECONDS = 3.0
PATIENCE = 120.0


class Store:
    """The dataset service as a process, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self._endpoint, self._folder, self._port = folder / "endpoint.json", folder, 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._endpoint.unlink(missing_ok=True)
        settings = {"DATA_DIR": self._folder / "data", "ENDPOINT_FILE": self._endpoint, "PORT": self._port}
        variables = {f"CODEALIGN_DATASET_{name}": str(value) for name, value in settings.items()}
        with (self._folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "codealign.dataset.main"]
            return subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log)

    async def address(self) -> str:
        """Return the address once the process listens."""
        async with asyncio.timeout(PATIENCE):
            while not self._endpoint.exists():
                assert self.process.poll() is None, (self._folder / "log").read_text()
                await asyncio.sleep(0.1)
        self._port = int(json.loads(self._endpoint.read_text())["port"])
        return f"127.0.0.1:{self._port}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def restart(self) -> None:
        """Start again after a kill."""
        self.process.wait()
        self.process = self._start()

    def close(self) -> None:
        """Stop permanently."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another process brings it about
            await asyncio.sleep(0.1)


async def ended(dataset: Dataset, run: str) -> requests.Standing:
    """Wait until a run has ended, and return its standing."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                standing = await requests.standing(dataset, run)
            except CodeAlignError:
                standing = requests.Standing()
            if standing.request and standing.settled(repeatable=False):
                return standing
            await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_a_run_outlasts_a_store_that_is_stopped_and_killed_for_longer_than_the_lease(store: Store) -> None:
    async with Clients(Addresses(dataset=await store.address())) as clients:
        dataset = remote(clients).dataset
        work = Steps("a", steps=30, seconds=0.5)
        controllers = Controllers(dataset, [work], "a", LEASE_SECONDS, 5.0)
        run = records.complete(pb.Record(kind=pb.KIND_RUN, run=pb.Run(seed=1)))
        async with controllers.working():
            wanted = pb.RunRequest(wanted=pb.RUN_STATE_RUNNING, reason="started")
            request = await requests.append(dataset, run.id, wanted, 0, first=[run])
            controllers.poke(run.id, request.attempt)
            await until(lambda: work.begun > 0)
            await asyncio.sleep(1)
            store.send(signal.SIGSTOP)
            await asyncio.sleep(2 * LEASE_SECONDS)
            await until(lambda: bool(controllers.assigned[run.id].waiting.text))
            store.send(signal.SIGCONT)
            await asyncio.sleep(2)
            store.send(signal.SIGKILL)
            await asyncio.sleep(2 * LEASE_SECONDS)
            store.restart()
            standing = await ended(dataset, run.id)
        assert standing.state == pb.RUN_STATE_SUCCEEDED
        assert work.begun == 1
        events = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_RUN_EVENT, parent_id=run.id))
        assert len(events) == 2
        logs = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_WORK_LOG, collection=run.id))
        assert sorted(int(log.key.split("/")[2]) for log in logs) == list(range(30))
