"""The stop string that ends a text, found in the same way for every engine."""

from __future__ import annotations

from collections.abc import Iterable


def first_stop(text: str, stop: Iterable[str], start: int = 0) -> tuple[int, str] | None:
    """Where the first stop string begins from `start` on, and which it is; None where there is none."""
    return min(((at, one) for one in stop if (at := text.find(one, start)) >= 0), default=None)
