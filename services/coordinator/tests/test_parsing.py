"""Parsing of completions."""

from __future__ import annotations

import pytest

from codealign.coordinator.reading import parsing
from codealign.coordinator.reading.parsing import ParsedResponse, Rejected

GOOD = """Add them.

```python
def add(a, b):
    return a + b
```
</answer>
<tests>
```python
assert add(1, 2) == 3
```
"""


def reason(result: object) -> str:
    assert isinstance(result, Rejected)
    assert result.reason in parsing.REASONS
    return result.reason


def test_concepts_are_split_cleaned_and_kept_once() -> None:
    assert parsing.concepts(" sorting, Recursion ,sorting,\n- binary search.\n", cut_off=False) == [
        "sorting",
        "Recursion",
        "binary search",
    ]


def test_concepts_that_are_no_list_are_rejected() -> None:
    assert reason(parsing.concepts(" \n", cut_off=False)) == "empty"
    assert reason(parsing.concepts("a very long sentence " * 10, cut_off=False)) == "no-concepts"
    assert reason(parsing.concepts(",".join("abcdefghijkl"), cut_off=False)) == "no-concepts"
    assert reason(parsing.concepts("sorting", cut_off=True)) == "cut-off"


def test_an_instruction_needs_words_and_an_end() -> None:
    assert parsing.instruction("\nWrite a function that adds two numbers.\n", cut_off=False) == (
        "Write a function that adds two numbers."
    )
    assert reason(parsing.instruction("Write it", cut_off=False)) == "empty"
    assert reason(parsing.instruction("Write a function that adds two", cut_off=True)) == "cut-off"


def test_a_response_is_taken_apart() -> None:
    assert parsing.response(GOOD, cut_off=False) == ParsedResponse(
        "Add them.\n\n```python\ndef add(a, b):\n    return a + b\n```",
        "def add(a, b):\n    return a + b\n",
        "assert add(1, 2) == 3\n",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        (GOOD.replace("</answer>", ""), "no-answer-end"),
        (GOOD.replace("<tests>", ""), "no-tests-section"),
        (GOOD.replace("```python\ndef", "def", 1).replace("a + b\n```", "a + b", 1), "no-code-block"),
        (GOOD.replace("```python\nassert", "assert").replace("== 3\n```", "== 3"), "no-tests-block"),
    ],
)
def test_what_is_missing_in_a_response_is_named(text: str, expected: str) -> None:
    assert reason(parsing.response(text, cut_off=False)) == expected


def test_a_cut_response_is_rejected_even_if_it_looks_whole() -> None:
    assert reason(parsing.response(GOOD, cut_off=True)) == "cut-off"
