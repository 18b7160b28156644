"""A release: the packaged chart installs the pushed images by digest."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from charts import release
from tests.charts.rendered import SERVICES, helm

ROOT = Path(__file__).parents[2]
DIGESTS = {
    f"codealign-{name}": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}" for name in (*SERVICES, "sandbox-runner")
}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def run(*command: str) -> str:
        done = helm(*command[1:])
        assert done.returncode == 0, done.stderr
        return done.stdout

    monkeypatch.setattr(release, "_run", run)
    return release.package("registry.example/me/", DIGESTS, tmp_path)


def images(archive: Path, *arguments: str) -> set[str]:
    database = ("--set=postgresql.enabled=false", "--set=externalDatabase.url=postgresql://u:p@db.example:5432/x")
    done = helm("template", "run", str(archive), *database, *arguments)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    text = json.dumps(documents)
    return {word.strip('",\\') for word in text.split() if "codealign-" in word and "registry.example" in word}


def test_a_released_chart_pins_every_image(archive: Path) -> None:
    found = images(archive)
    wanted = {f"registry.example/me/{name}:{release.VERSION}@{digest}" for name, digest in DIGESTS.items()}
    assert wanted <= found
    assert all("@sha256:" in name for name in found)


def test_a_tag_that_is_asked_for_is_not_pinned(archive: Path) -> None:
    found = images(archive, "--set=image.tag=v9")
    assert "registry.example/me/codealign-dataset:v9" in found
    assert not any("@" in name for name in found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["all", "--registry", "ghcr.io/me", "--image", "dataset"], "a last slash"),
        (["images", "--registry", "ghcr.io/me/"], "no --image is given"),
        (["chart", "--registry", "ghcr.io/me/", "--unsigned"], "publish the images first"),
        (["images", "--registry", "ghcr.io/me/", "--image", "dataset", "--without-sbom"], "cosign is not on PATH"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("docker", "helm"):
        (programs / name).symlink_to("/bin/true")
    command = [sys.executable, "-m", "charts.release", *arguments, "--output", str(tmp_path / "release")]
    ended = subprocess.run(command, env={"PATH": str(programs)}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
