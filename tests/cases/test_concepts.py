"""Concepts as models list them: only list markers, surrounding characters and full stops are removed."""

from __future__ import annotations

import pytest

from codealign.coordinator.reading import parsing
from tests.cases.files import cases

CASES = cases("concepts.jsonl")


@pytest.mark.parametrize("name", CASES)
def test_terms_are_read(name: str) -> None:
    assert parsing.concepts(CASES[name]["completion"], cut_off=False) == CASES[name]["expected"]


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "empty", "no term in nothing"),
        ("-\n1.\n...\n", "empty", "no term in 3 lines"),
        (",".join("abcdefghijkl"), "no-concepts", "12 terms, the longest of 1 character"),
        ("one very long sentence " * 4, "no-concepts", "1 term, the longest of 91 characters"),
    ],
)
def test_what_is_no_list_says_what_was_seen(text: str, reason: str, detail: str) -> None:
    assert parsing.concepts(text, cut_off=False) == parsing.Rejected(reason, detail)
