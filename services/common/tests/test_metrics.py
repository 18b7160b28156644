"""Metrics of the disks that a server writes to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

from codealign.common.metrics import watch_disk


def value(name: str, volume: str) -> float:
    found = REGISTRY.get_sample_value(f"codealign_disk_{name}_bytes", {"volume": volume})
    assert found is not None
    return found


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
