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
