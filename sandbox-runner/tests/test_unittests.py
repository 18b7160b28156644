"""What tests may do to unittest without casting doubt on them."""

from __future__ import annotations

import builtins
import copy
import sys
import unittest
import unittest.mock
from collections.abc import Callable
from typing import Any

import pytest

from codealign.runner.unittests import unchanged


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
