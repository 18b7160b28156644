"""Metrics that every server has, and how they are served."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Gauge, generate_latest

from codealign.common.metrics import serve, watch_disk


def value(name: str, volume: str) -> float:
    found = REGISTRY.get_sample_value(f"codealign_disk_{name}_bytes", {"volume": volume})
    assert found is not None
    return found


@pytest.fixture
def _gauge() -> Iterator[None]:
    gauge = Gauge("engine:seen", "A name as vLLM gives it")
    yield
    REGISTRY.unregister(gauge)


@pytest.mark.usefixtures("_gauge")
def test_a_name_with_a_colon_reaches_every_prometheus() -> None:
    address = f"http://127.0.0.1:{serve('127.0.0.1', 0)}/metrics"
    for accepted in (
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
    ):
        with urllib.request.urlopen(urllib.request.Request(address, headers={"Accept": accepted})) as answer:
            assert b"\nengine:seen 0.0\n" in answer.read()


def test_a_volume_counts_before_its_directory_exists(tmp_path: Path) -> None:
    watch_disk("later", tmp_path / "not" / "yet")
    assert value("size", "later") == shutil.disk_usage(tmp_path).total
    assert 0 < value("free", "later") <= value("size", "later")


@pytest.mark.parametrize(("where", "what"), [(shutil, "disk_usage"), (Path, "exists")])
def test_a_disk_that_fails_hides_no_other_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, what: str
) -> None:
    def fail(_: object) -> None:
        raise OSError("input/output error")

    watch_disk("failing", tmp_path)
    monkeypatch.setattr(where, what, fail)
    text = generate_latest().decode()
    assert 'codealign_disk_free_bytes{volume="failing"} NaN' in text
    assert "python_info" in text
