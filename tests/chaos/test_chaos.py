"""Short versions of the long tests, which `make soak` and `make chaos` run in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import gateways
from tests.chaos import kill_runners, run_chaos, soak

pytestmark = pytest.mark.slow


@pytest.mark.gvisor
def test_every_verdict_is_right_with_hostile_programs_among_them() -> None:
    with gateways.own_cache() as cache:
        found = soak.run(150, callers=4, runners=1, slots=2, share=0.1, seed=7, cache=cache)
    soak.report(found, runners=1)
    assert found.tally.wrong == []
    assert found.left == []
    assert found.tally.done == 150
    assert found.looks


@pytest.mark.gvisor
def test_killed_runners_change_no_verdict() -> None:
    with gateways.own_cache() as cache:
        found = kill_runners.run(150, kills=3, every=1.5, callers=4, runners=2, seed=7, cache=cache)
    kill_runners.report(found)
    assert found.tally.wrong == []
    assert found.left == []
    assert found.kills >= 3
    assert found.tally.done >= 150


@pytest.mark.timeout(600)
def test_runs_under_random_faults_publish_what_undisturbed_runs_publish(tmp_path: Path) -> None:
    size = run_chaos.Size(faults=10, seconds=3.0, seeds=16, speed=12.0, settle_seconds=180.0)
    found = run_chaos.run(size, seed=7, folder=tmp_path)
    run_chaos.report(found)
    assert found.wrong == []
    assert len(found.injected) == 10
    assert found.rows
