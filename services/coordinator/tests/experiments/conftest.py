"""Fixtures: toy pipelines in addition to the real ones."""

from __future__ import annotations

import pytest

from codealign.coordinator import pipelines
from fakes import toys


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {**pipelines._pipelines(), **toys.shapes()}
    monkeypatch.setattr(pipelines, "_pipelines", lambda: found)
