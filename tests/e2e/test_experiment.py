"""An experiment on the embedded model, whose services are killed at random moments, has the results of a quiet one."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.commands import codealign, command
from tests.e2e.conftest import SERVICES
from tests.e2e.test_recorded_run import kill

pytestmark = [pytest.mark.gvisor, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(900)]
FILE = """
name: small
preset: nano
n: 6
seeds: [0, 1]
run: {stages: {responses: {attempts: 2}}}
training: {max_steps: 2}
evaluations:
  - {benchmarks: [nanoeval], samples: 2, temperature: 0.7, max_tokens: 160, limit: 4}
arms:
  - base
  - {name: answers, strategy: random-response}
claims:
  - {statement: Two steps help., better: answers, than: base}
"""
KILLS = 6
PAUSE_SECONDS = (0.5, 6.0)
"""Shortest and longest time between two kills, so that some hit services that are starting."""
ATTEMPTS = 20


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "small.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def quiet(
    tmp_path_factory: pytest.TempPathFactory, file: Path, services_up: Callable[..., AbstractContextManager[None]]
) -> Path:
    """Home directory of an undisturbed experiment."""
    home = tmp_path_factory.mktemp("quiet")
    with services_up(home, "--preset", "nano"):
        codealign(home, "experiment", str(file))
    return home


def results(home: Path) -> object:
    """Return an experiment's results without what names a moment."""
    found = json.loads((home / "experiments/small.json").read_text())
    del found["experiment"]["created_at"]
    return found


def test_an_experiment_has_a_table_a_plot_and_a_decided_claim(quiet: Path) -> None:
    page = (quiet / "experiments/small.md").read_text()
    assert "Two steps help." in page
    assert "| base |" in page
    assert (quiet / "experiments/small.svg").read_text().startswith("<svg")


def test_killed_services_change_no_result(
    quiet: Path, file: Path, tmp_path: Path, services_up: Callable[..., AbstractContextManager[None]]
) -> None:
    dice = random.Random(20)
    killed: list[str] = []
    again = command(tmp_path, "experiment", str(file))
    with services_up(tmp_path, "--preset", "nano"):
        for _ in range(ATTEMPTS):
            run = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while run.poll() is None:
                if len(killed) < KILLS:
                    time.sleep(dice.uniform(*PAUSE_SECONDS))
                    service = dice.choice(SERVICES)
                    killed += [service] if kill(tmp_path, service) else []
                else:
                    run.wait(600)
            _, errors = run.communicate()
            # The watching command may have failed on an unreachable service; repeat it to continue.
            if run.returncode == 0:
                break
        assert run.returncode == 0, errors.decode()[-2000:]
    assert len(killed) > KILLS // 2, f"the experiment was over too soon: only {killed} were killed"
    assert results(tmp_path) == results(quiet)
