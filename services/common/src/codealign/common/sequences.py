"""Helpers for sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")


def batched(items: Sequence[ItemT], length: int) -> Iterator[Sequence[ItemT]]:
    """Yield the items in batches of at most this length, like `itertools.batched` of Python 3.12."""
    return (items[start : start + length] for start in range(0, len(items), length))
