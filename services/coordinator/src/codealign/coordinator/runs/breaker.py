"""A circuit breaker that pauses a run whose items suddenly start failing in large numbers.

One failing item is a Rejection and does not stop the run. If most of a stage's recent items end in internal errors or
are refused by a service, the items are not the cause: someone must look before the remaining items are used up.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from codealign.coordinator import metrics
from codealign.coordinator.pipelines import INTERNAL_ERROR

REFUSALS = frozenset({"prompt-refused", "prompt-too-long", "content-filter", "REFUSED"})
"""Rejection reasons, and the verdict, for an item that a service refused."""
UNDECIDED: Final = "INFRASTRUCTURE"
"""Stands in for a verdict if the sandbox kept failing on a program."""
SIZE = 50
"""Number of a stage's last items that are considered: those processed now, not those found in the store."""
LEAST = 20
"""Minimum number of items for a conclusion."""
SHARE = 0.5

_WORDS = {
    "error": "ended in internal errors",
    "refusal": "were refused",
    "fault": "have no verdict, since the sandbox kept failing",
}


class BreakerOpened(Exception):
    """The run must be paused; the message says why and what to do."""


class Breaker:
    """Counts the failures among the last items of each stage."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[str]] = {}
        self.reason = ""
        """Why the breaker opened, or "" if it has not."""

    def open(self, reason: str) -> None:
        """Pause the run for a reason that needs no counting. The first reason is kept."""
        if not self.reason:
            self.reason = reason
            metrics.BREAKER_OPENINGS.inc()

    def saw(self, stage: str, reason: str | None, detail: str = "") -> None:
        """Record that a stage finished an item.

        Args:
            stage: The stage's name.
            reason: Why the item was dropped, or None.
            detail: Explanation of the drop; the last one is quoted in the breaker's reason.
        """
        seen = self._seen.setdefault(stage, deque(maxlen=SIZE))
        kind = _kind(reason)
        seen.append(kind)
        if not kind or self.reason or len(seen) < LEAST:
            return
        count = seen.count(kind)
        if count >= SHARE * len(seen):
            last = f"; the last one: {detail}" if detail else ""
            self.open(
                f"the breaker: {stage}: {count} of the last {len(seen)} items {_WORDS[kind]}{last}. "
                "Look at the cause, then resume"
            )


def _kind(reason: str | None) -> str:
    if reason == INTERNAL_ERROR:
        return "error"
    if reason == UNDECIDED:
        return "fault"
    return "refusal" if reason in REFUSALS else ""
