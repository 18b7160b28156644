"""Values that are put together from parts of others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.coordinator.agreement import mixtures
from codealign.coordinator.agreement.hints import Hints
from codealign.coordinator.agreement.values import Built, source

NO_HINTS = Hints()
COUNT = 200


def made(*rows: tuple[Any, ...], hints: Hints = NO_HINTS, count: int = COUNT) -> list[list[Any]]:
    return list(itertools.islice(mixtures.mixtures(rows, hints), count))


def column(*values: Any, hints: Hints = NO_HINTS) -> list[Any]:
    return [row[0] for row in made(*((value,) for value in values), hints=hints)]


def test_equal_texts_give_equal_values_and_others_give_others() -> None:
    assert made(([1, 2],), ([3],)) == made(([1, 2],), ([3],))
    assert made(([1, 2],), ([3],)) != made(([1, 2],), ([4],))
    assert made(([1, 2],)) != made(([1, 2],), hints=Hints(numbers=(2,)))


def test_a_number_occurs_together_with_its_negative() -> None:
    """So that `-v for v in values` is told from `abs(v) for v in values` by the number of distinct values."""
    found = column([0, 2, 5, 12], [2, 2, -2], hints=Hints(numbers=(2,)))
    assert any(each > 2 and -each in value for value in found for each in value)


def test_long_words_with_a_letter_twice_are_put_together() -> None:
    """So that `len(w) > 5` is told from `>= 5`, and `w.count('e')` from `'e' in w`."""
    found = column({"sun": 5, "ice": 10}, {"nest": 5}, hints=Hints(numbers=(5,), texts=("e",)))
    assert any(len(key) > 5 and key.count("e") > 1 for value in found for key in value)
    assert any(len(key) == 5 and "e" in key for value in found for key in value)


def test_boundaries_are_more_likely_than_other_numbers() -> None:
    found = column([1, 100], hints=Hints(numbers=(77,)))
    numbers = [each for value in found for each in value]
    assert {76, 77, 78} <= set(numbers)


def test_negative_numbers_are_left_out_where_nobody_uses_them() -> None:
    flat = [each for value in column([3, 1], hints=Hints(negative=False)) for each in value]
    assert min(flat) >= 0
    assert min(each for value in column([3, -1], hints=Hints(negative=False)) for each in value) < 0


@pytest.mark.parametrize(
    "examples",
    [
        [("Ann", 31), ("Bob", 4)],
        [{"name": "Ann", "age": 31}, {"name": "Bob", "age": 3}],
    ],
)
def test_a_record_keeps_its_shape(examples: list[Any]) -> None:
    for each in column(*examples):
        items = each.values() if isinstance(each, dict) else each
        assert [type(item) for item in items] == [str, int]


@pytest.mark.parametrize("value", [None, b"ab", Built("Point", (1,)), {(1, 2): 3}])
def test_what_has_no_parts_is_taken_as_it_is(value: object) -> None:
    assert all(each == value for each in column(value, value))


def test_empty_containers_stay_empty() -> None:
    assert all(each == [] for each in column([]))
    assert made() == []


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=4)
        | st.tuples(children, children)
        | st.dictionaries(st.integers() | st.text(max_size=4), children, max_size=4)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=4))
def test_every_value_has_a_kind_of_the_examples_and_can_be_written(rows: list[tuple[Any, Any]]) -> None:
    for row in made(*rows, count=10):
        for place, value in enumerate(row):
            assert type(value) in {type(example[place]) for example in rows}
            assert len(source(value)) < 100_000
