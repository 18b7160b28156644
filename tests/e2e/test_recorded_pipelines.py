"""Every pipeline in which a model writes, on recorded completions: real services, real store, real gVisor."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from codealign.coordinator import pipelines
from codealign.coordinator.pipelines.stage import Writing
from tests.e2e.commands import codealign
from tests.e2e.recorded_pipelines import BENCHMARKS, PIPELINES, ROWS, digest, published, recording, run

pytestmark = [pytest.mark.gvisor, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def replayed(
    tmp_path_factory: pytest.TempPathFactory, services_up: Callable[..., AbstractContextManager[None]]
) -> tuple[Path, dict[str, Path]]:
    """A home directory in which each pipeline was replayed, and the version of each pipeline."""
    home = tmp_path_factory.mktemp("pipelines")
    versions: dict[str, Path] = {}
    for model, names in PIPELINES.items():
        with services_up(home, "--engine", "replay", "--recording", str(recording(model)), "--benchmarks", BENCHMARKS):
            for name in names:
                before = set(published(home))
                codealign(home, *run(name), "--model", model)
                (versions[name],) = set(published(home)) - before
    return home, versions


def test_every_pipeline_with_a_model_is_recorded() -> None:
    recorded = {name for names in PIPELINES.values() for name in names} - {"agreement"}
    written = {
        name for name in pipelines.names() if any(isinstance(stage, Writing) for stage in pipelines.get(name).stages)
    }
    longer_rounds = {"evol-instruct-3", "evol-instruct-4"}
    assert recorded == written - longer_rounds


@pytest.mark.parametrize("name", [name for names in PIPELINES.values() for name in names])
def test_a_replay_publishes_the_recorded_rows(name: str, replayed: tuple[Path, dict[str, Path]]) -> None:
    version = replayed[1][name]
    manifest = json.loads((version / "manifest.json").read_text())
    assert manifest["rows"] > 0
    assert digest(version) == json.loads(ROWS.read_text())[name]
