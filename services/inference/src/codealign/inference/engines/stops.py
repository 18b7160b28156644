"""Stop strings, found in the same way for every engine."""

from __future__ import annotations

from collections.abc import Iterable


def first_stop(text: str, stop: Iterable[str], start: int = 0) -> tuple[int, str] | None:
    """Return position and text of the first stop string at or after `start`, or None."""
    return min(((at, one) for one in stop if (at := text.find(one, start)) >= 0), default=None)
