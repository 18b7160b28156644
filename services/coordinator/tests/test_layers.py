"""Each coordinator package imports only from lower layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import codealign.coordinator.settings as any_module

PACKAGE = "codealign.coordinator"
SOURCE = Path(any_module.__file__).parent
LAYERS = (
    ("settings", "metrics", "reading"),
    ("ground", "rules", "agreement"),
    ("pipelines",),
    ("runs", "evaluation"),
    ("loops",),
    ("rounds", "experiments"),
    ("reporting",),
    ("servicer",),
    ("main",),
)
"""Layers from the bottom up. A module imports only its own package and those of lower layers."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the coordinator packages that a module imports, with the line; includes TYPE_CHECKING imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == PACKAGE else [module]
            assert not node.level, f"{path}:{node.lineno}: relative import"
        else:
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith(f"{PACKAGE}."):
                yield node.lineno, name.removeprefix(f"{PACKAGE}.").split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downwards(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in RANK, f"{own} has no place in LAYERS"
    for line, package in imported(path):
        assert package == own or RANK[package] < RANK[own], f"{path}:{line} imports {package}, which is not below {own}"


def test_every_layer_is_there() -> None:
    """Otherwise the check above would miss a renamed package."""
    there = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in MODULES}
    assert set(RANK) <= there


def test_the_ground_of_pipelines_knows_no_service() -> None:
    for name in ("reading", "rules", "agreement", "pipelines"):
        for path in (SOURCE / name).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "import grpc" not in text, path
            assert "codealign.common.clients" not in text, path
