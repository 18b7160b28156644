"""What tests may do to unittest without casting doubt on them."""

from __future__ import annotations

import builtins
import copy
import sys
import unittest
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codealign.runner import sources
from codealign.runner.unittests import load, unchanged


def copies_calls() -> None:
    mock = unittest.mock.Mock()
    mock([1])
    assert len(copy.deepcopy(mock.call_args_list)) == 1


def sets_the_order() -> None:
    unittest.TestLoader.sortTestMethodsUsing = None  # type: ignore[assignment]


def sets_the_prefix() -> None:
    unittest.TestLoader.testMethodPrefix = "check"


def replaces_an_assertion() -> None:
    unittest.TestCase.assertEqual = print  # type: ignore[method-assign, assignment]


def has_the_comparison_see_what_was() -> None:
    """Replace the builtin by which the comparison reads classes, and then an assertion."""
    own: Any = print
    real, before = vars, dict(vars(unittest.TestCase))
    own.__self__.vars = lambda *owner: before if owner == (unittest.TestCase,) else real(*owner)
    replaces_an_assertion()


def has_the_comparison_see_other_modules() -> None:
    sys.modules = dict(sys.modules)


@pytest.mark.parametrize(
    ("action", "same"),
    [
        (copies_calls, True),
        (sets_the_order, True),
        (sets_the_prefix, False),
        (replaces_an_assertion, False),
        (has_the_comparison_see_what_was, False),
        (has_the_comparison_see_other_modules, False),
    ],
)
def test_what_changes_no_outcome_casts_no_doubt(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[], None], same: bool
) -> None:
    for owner, name in (
        (unittest.TestLoader, "sortTestMethodsUsing"),
        (unittest.TestLoader, "testMethodPrefix"),
        (unittest.TestCase, "assertEqual"),
        (builtins, "vars"),
        (sys, "modules"),
    ):
        monkeypatch.setattr(owner, name, vars(owner)[name])  # restored afterwards
    is_same = unchanged()
    action()
    assert is_same() is same


def test_no_module_of_the_program_is_imported_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = tmp_path / "numpy"
    numpy.mkdir()
    for name in ("__init__.py", "testing.py"):
        (numpy / name).write_text("raise SystemExit('imported')\n")
    names = [name for name in sys.modules if name.partition(".")[0] == "numpy"]
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    case: Any = unittest.case
    monkeypatch.setattr(case, "_ShouldStop", case._ShouldStop)  # restored afterwards
    monkeypatch.setattr(sources, "FOLDER", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    load("import unittest  # testing", mock=False)
    assert sys.path == [str(tmp_path)]
    assert "numpy.testing" not in sys.modules
