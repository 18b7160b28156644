"""A run whose store is unreachable for longer than any lease: it waits, reports this, and ends normally."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import grpc
import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from tests.bench.scene import ENDED, POSTGRESQL, Scene, empty_database, follow, pipeline_of, run_of, store_seeds

OUTAGE_SECONDS = float(os.environ.get("CODEALIGN_OUTAGE_SECONDS", "15"))
"""Five times the lease. Set it to 120 for an outage of two minutes."""
SEEDS = 16
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 2 * int(OUTAGE_SECONDS))]


def _version(folder: Path, speed: str, outage: float) -> tuple[str, list[str]]:
    """Return the version of a run, and what it reported to wait for."""
    with empty_database(POSTGRESQL) as database:
        assert database.server is not None
        inference = {"simulated_speed": speed, "slots": "16"}
        scene = Scene(folder, database.url, inference=inference, coordinator={"lease_seconds": "3"})
        with scene.up(), scene.stubs() as (coordinator, dataset):
            store_seeds(dataset, SEEDS)
            run = coordinator.CreateRun(
                api.CreateRunRequest(config=run_of("nano", pipeline_of(coordinator))), timeout=30
            ).run.id
            said: list[str] = []
            if outage:
                _until_half_way(scene, run)
                database.server.stop()
                until = time.monotonic() + outage
                while time.monotonic() < until:
                    with contextlib.suppress(grpc.RpcError):
                        status = coordinator.GetRun(api.GetRunRequest(run=run), timeout=5).run
                        assert status.state == pb.RUN_STATE_RUNNING, status.message
                        said += [status.waiting_for] if status.waiting_for else []
                    time.sleep(0.5)
                database.server.start()
            ended = follow(coordinator, run, 0.1, 240)
            assert ended.state == pb.RUN_STATE_SUCCEEDED, ended.message
            assert not ended.waiting_for
            return ended.version, said


def _until_half_way(scene: Scene, run: str) -> None:
    deadline = time.monotonic() + 120
    with scene.stubs() as (coordinator, _):
        while time.monotonic() < deadline:
            status = coordinator.GetRun(api.GetRunRequest(run=run), timeout=30).run
            assert status.state not in ENDED, "it ended before it was disturbed"
            if any(stage.stage == "execution" and stage.done >= SEEDS for stage in status.stages):
                return
            time.sleep(0.05)
    pytest.fail("the run does not get anywhere")


def test_a_run_waits_for_its_database_says_so_and_ends_with_the_undisturbed_version(tmp_path: Path) -> None:
    disturbed, said = _version(tmp_path / "disturbed", "12", OUTAGE_SECONDS)
    undisturbed, _ = _version(tmp_path / "undisturbed", "0", 0)
    assert disturbed == undisturbed
    assert said
    assert all("dataset" in each for each in said), said
