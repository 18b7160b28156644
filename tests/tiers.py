"""Pytest plugin: what a test needs, and the tiers that follow from it.

A marker says what a test needs beyond Python. Most follow from fixtures and imports, so a test states only what cannot
be seen (`gvisor`, `slow`). `--tier unit` runs the tests that need nothing, and hides programs and packages from them:
an unmarked test that needs one fails there, with a message that names the marker.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

NEEDS = ("gvisor", "docker", "helm", "postgres", "prometheus", "model", "vllm", "slow")
"""Markers of tests that the unit tier leaves out."""

FIXTURES = {
    "docker_is_there": "docker",
    "postgres": "postgres",
    "model_folder": "model",
    "make_model": "model",
    "vllm_url": "vllm",
}
"""Fixtures that bring a marker with them."""

OTHER_FOLDERS = ("tests/cluster", "tests/gpu")
"""Tests that are in neither tier: they have commands of their own."""

LONGEST = (
    "tests/e2e/test_recorded_run.py",
    "tests/e2e/test_nano.py",
    "tests/e2e/test_experiment.py",
    "services/inference/tests/test_vllm.py",
    "tests/hostile/test_corpus.py",
    "tests/e2e/test_rounds.py",
    "services/sandbox/tests/test_pod.py",
    "tests/e2e/test_recorded_pipelines.py",
    "tests/evaluation/test_parity.py",
    "trainer/tests/test_service.py",
)
"""Files that take minutes, the longest first, as `tests/durations.py` reports them."""

HIDDEN_PROGRAMS = {
    "runsc": "gvisor",
    "docker": "docker",
    "helm": "helm",
    "initdb": "postgres",
    "pg_ctl": "postgres",
    "promtool": "prometheus",
    "prometheus": "prometheus",
}
HIDDEN_PACKAGES = {"torch": "model", "transformers": "model", "vllm": "vllm"}
"""What an unmarked test does not find, and the marker that it should have."""

_LOADS_MODEL = re.compile(
    r"^(?:import|from) (?:torch|transformers|trl|codealign\.inference\.engines\.transformers)\b"
    r"|^pytestmark\b.*\bpytest\.mark\.model\b",
    re.MULTILINE,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier",
        choices=("all", "unit", "integration"),
        default="all",
        help="unit: tests without markers, from which programs are hidden; integration: all others",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--tier") != "unit":
        return
    if hasattr(config, "workerinput"):
        # pytest-xdist gives workers a search path of its own; the environment is that of the main process.
        sys.path.insert(0, os.environ["PYTHONPATH"].split(os.pathsep)[0])
        return
    folder = Path(tempfile.mkdtemp(prefix="codealign-tier-"))
    config.add_cleanup(functools.partial(shutil.rmtree, folder))
    _hide(folder)


def _hide(folder: Path) -> None:
    """Put stand-ins that fail before the real programs and packages, for this process and its children."""
    for program, marker in HIDDEN_PROGRAMS.items():
        script = folder / program
        script.write_text(f"#!/bin/sh\necho '{_refusal(program, marker)}' >&2\nexit 97\n")
        script.chmod(0o755)
    for package, marker in HIDDEN_PACKAGES.items():
        (folder / f"{package}.py").write_text(f"raise RuntimeError({_refusal(package, marker)!r})\n")
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(folder))


def _refusal(name: str, marker: str) -> str:
    return f"{name} is hidden from unit tests: mark the test pytest.mark.{marker}"


@functools.cache
def _loads_model(path: Path) -> bool:
    """Return whether a test file imports PyTorch, by its text: importing it would be too late."""
    return path.suffix == ".py" and _LOADS_MODEL.search(path.read_text(encoding="utf-8")) is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.getoption("--tier") != "all" and collection_path in {config.rootpath / name for name in OTHER_FOLDERS}:
        return True
    named = collection_path.name.startswith("test_") and collection_path.is_file()
    return True if config.getoption("--tier") == "unit" and named and _loads_model(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for marker in _implied(item):
            item.add_marker(marker)
    tier = config.getoption("--tier")
    if tier != "all":
        chosen = [item for item in items if _is_unit(item) == (tier == "unit")]
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen
    # Workers take whole files (`--dist loadfile`) in this order: a file of minutes that came last would leave the other
    # workers idle.
    places = {config.rootpath / name: place for place, name in enumerate(LONGEST)}
    slow = {item.path: len(places) for item in items if item.get_closest_marker("slow")}
    order = slow | places
    items.sort(key=lambda item: order.get(item.path, len(places) + 1))


def _implied(item: pytest.Item) -> set[str]:
    found = {marker for fixture, marker in FIXTURES.items() if fixture in getattr(item, "fixturenames", ())}
    if "postgresql" in getattr(getattr(item, "callspec", None), "params", {}).values():
        found.add("postgres")
    if _loads_model(item.path):
        found.add("model")
    if item.path.name == "test_vllm.py":
        found.add("vllm")
    if item.path.parent.name == "charts":
        found.add("helm")
    return found


def _is_unit(item: pytest.Item) -> bool:
    return not any(item.get_closest_marker(name) for name in NEEDS)
