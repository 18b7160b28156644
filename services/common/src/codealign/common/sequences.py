"""Helpers for sequences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

ItemT = TypeVar("ItemT")


def batched(items: Iterable[ItemT], length: int) -> Iterator[list[ItemT]]:
    """Yield the items in batches of at most this length, like `itertools.batched` of Python 3.12."""
    left = iter(items)
    while batch := list(islice(left, length)):
        yield batch


def alternating(columns: Iterable[Iterable[ItemT]]) -> Iterator[ItemT]:
    """Yield the first item of each column, then the second of each, until all are used up."""
    waiting = [iter(column) for column in columns]
    while waiting:
        left = []
        for column in waiting:
            for item in islice(column, 1):
                yield item
                left.append(column)
        waiting = left
