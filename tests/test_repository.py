"""What is stated in two places says the same: versions, locks, workflows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from codealign.sandbox.settings import SandboxSettings

ROOT = Path(__file__).parents[1]
VERSION = (ROOT / "VERSION").read_text().strip()
DISTRIBUTIONS = sorted(
    path for path in ROOT.glob("**/pyproject.toml") if path.parent != ROOT and ".venv" not in str(path)
)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("pyproject", DISTRIBUTIONS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_a_distribution_takes_its_version_from_the_one_file(pyproject: Path) -> None:
    stated = tomllib.loads(pyproject.read_text())
    assert "version" in stated["project"]["dynamic"]
    assert (pyproject.parent / stated["tool"]["hatch"]["version"]["path"]).resolve() == ROOT / "VERSION"


def test_the_chart_and_the_images_have_the_distributions_version() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "codealign" / "Chart.yaml").read_text())
    assert (str(chart["version"]), str(chart["appVersion"])) == (VERSION, VERSION)
    assert SandboxSettings.model_fields["image"].default == f"codealign-sandbox-runner:{VERSION}"


def test_pips_lock_is_what_uvs_lock_says() -> None:
    (export,) = re.findall(
        r"^\t@\$\(BIN\)/uv (export .*?) \\\n\t\t(.*?) --output-file", (ROOT / "Makefile").read_text(), re.M
    )
    command = [str(Path(sys.executable).parent / "uv"), *" ".join(export).split(), "--offline"]
    exported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout == (ROOT / "requirements.lock").read_text(), "run `make lock`"


def test_uvs_lock_names_no_index_but_pypi() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_targets_and_scripts_that_exist(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = workflow.read_text()
    asked = set(re.findall(r"\bmake (?:--no-print-directory )?([a-z-]+)\b", text))
    assert asked
    assert asked <= targets
    assert all((ROOT / script).stat().st_mode & 0o100 for script in re.findall(r"\.github/[a-z/]+\.sh", text))


@pytest.mark.parametrize("file", sorted((ROOT / ".github").glob("[aw]*/**/*.yml")), ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(file: Path) -> None:
    used = [use for use in re.findall(r"uses: (\S+)", file.read_text()) if not use.startswith("./")]
    assert used
    assert [use for use in used if not re.search(r"@[0-9a-f]{40}$", use)] == []
