"""Fixtures: toy pipelines in addition to the real ones, and retries without delay."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codealign.coordinator import pipelines
from codealign.coordinator.ground import calls, faults
from codealign.coordinator.pipelines.pipeline import Pipeline
from fakes import toys


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "delay", lambda tried, error: 0.0)
    monkeypatch.setattr(calls, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def use_pipelines(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Pipeline]], None]:
    """Return a function that registers pipelines in addition to the real ones."""
    real = pipelines._pipelines()

    def use(found: dict[str, Pipeline]) -> None:
        monkeypatch.setattr(pipelines, "_pipelines", lambda: {**real, **found})

    return use


@pytest.fixture(autouse=True)
def _toys(use_pipelines: Callable[[dict[str, Pipeline]], None]) -> None:
    use_pipelines(toys.shapes())
