"""Helpers for sequences."""

from __future__ import annotations

import itertools

from codealign.common.sequences import alternating, batched


def test_columns_take_turns_until_each_is_used_up() -> None:
    assert list(alternating([[1, 4], [], [2], [3, 5, 6]])) == [1, 2, 3, 4, 5, 6]


def test_columns_may_be_endless_and_contain_none() -> None:
    assert list(itertools.islice(alternating([itertools.repeat(None), itertools.count()]), 4)) == [None, 0, None, 1]


def test_batches_have_at_most_their_length() -> None:
    assert list(batched("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
