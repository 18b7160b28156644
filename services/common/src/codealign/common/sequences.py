"""Sequences in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")


def batched(items: Sequence[ItemT], length: int) -> Iterator[Sequence[ItemT]]:
    """The items in pieces of at most this length, as `itertools.batched` of Python 3.12 gives them."""
    return (items[start : start + length] for start in range(0, len(items), length))
