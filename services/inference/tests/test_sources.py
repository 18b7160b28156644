"""Model sources: URLs are downloaded completely, once, and again when they change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from codealign.common.errors import ConfigurationError
from codealign.inference.sources import SourceUnreachable, default_name, key_of, local_source
from codealign.inference.weights import DoesNotFit

URL = "memory://bucket/checkpoints/final"


@pytest.fixture
def bucket() -> Iterator[Any]:
    """An object store with a checkpoint."""
    store = fsspec.filesystem("memory")
    for name, data in (("config.json", b"{}"), ("model.safetensors", b"weights"), ("optimizer.pt", b"not wanted")):
        store.pipe_file(f"/bucket/checkpoints/final/{name}", data)
    store.pipe_file("/bucket/checkpoints/final/step-1/config.json", b"not wanted")
    yield store
    store.rm("/bucket", recursive=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_artifact_is_copied_once_and_anew_when_it_changed(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local_source(URL, tmp_path)
    assert content(first) == {"config.json": b"{}", "model.safetensors": b"weights"}
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "get_file", lambda *_: pytest.fail("fetched again"))
        assert local_source(URL + "/", tmp_path) == first or local_source(URL, tmp_path) == first
    bucket.pipe_file("/bucket/checkpoints/final/model.safetensors", b"WEIGHTS")
    second = local_source(URL, tmp_path)
    assert second != first
    assert (second / "model.safetensors").read_bytes() == b"WEIGHTS"
    assert (first / "model.safetensors").read_bytes() == b"weights"


def test_a_single_file_is_copied_too(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe_file("/bucket/run.jsonl", b"{}\n")
    assert local_source("memory://bucket/run.jsonl", tmp_path).read_bytes() == b"{}\n"


def test_a_download_that_broke_leaves_nothing_that_is_taken_for_whole(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_file = type(bucket).get_file

    def torn(self: Any, remote: str, local: str) -> None:
        get_file(self, remote, local)
        if remote.endswith("safetensors"):
            Path(local).write_bytes(b"we")

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "get_file", torn)
        with pytest.raises(SourceUnreachable, match="has 2 bytes, but its listing said 7"):
            local_source(URL, tmp_path)
    assert [path.suffix for path in (tmp_path / "artifacts").iterdir()] == [".lock"]
    # Remains of a killed process are removed.
    [lock] = (tmp_path / "artifacts").iterdir()
    partial = lock.with_name(f"{lock.stem}-final.partial")
    partial.mkdir()
    (partial / "config.json").write_text("half")
    assert content(local_source(URL, tmp_path))["config.json"] == b"{}"
    assert not partial.exists()


def test_urls_that_hold_no_model_are_refused(bucket: Any, tmp_path: Path) -> None:
    for url, message in (
        ("memory://bucket/none", "does not exist"),
        ("memory://bucket/checkpoints", "contains no model files"),
        ("nosuchkind://bucket", "unsupported URL scheme"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            local_source(url, tmp_path)


def test_a_store_whose_library_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="s3fs"):
        local_source("s3://bucket/final", tmp_path)


def test_a_store_that_does_not_answer_may_be_asked_again(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(type(bucket), "info", down)
    with pytest.raises(SourceUnreachable, match="cannot be listed"):
        local_source(URL, tmp_path)


def test_a_full_disk_is_refused_with_numbers(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 3

    monkeypatch.setattr("codealign.inference.sources.shutil.disk_usage", lambda _: Full)
    with pytest.raises(DoesNotFit, match=r"artifacts has only 0\.0 GB free: free disk space"):
        local_source(URL, tmp_path)


def test_a_file_url_is_used_where_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    url = f"file://{tmp_path}/a%20b"
    assert local_source(url, tmp_path) == folder
    assert key_of(url) == key_of(str(folder)) == key_of(f"{folder}/")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-1.5B"),
        ("/models/tiny/", "tiny"),
        ("s3://bucket/runs/7/final/", "final"),
        ("file:///data/a%20b", "a b"),
    ],
)
def test_a_model_is_named_by_the_last_part_of_its_source(source: str, name: str) -> None:
    assert default_name(source) == name
