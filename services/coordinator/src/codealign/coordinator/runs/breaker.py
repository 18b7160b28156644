"""Stops a run whose items suddenly fail in masses, before all of them do.

One odd item is a Rejection and ends nothing. When most of a stage's last items end in internal errors, or are refused
by the service that was to work on them, the cause is not in the items: a person is to look before the rest is used up.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from codealign.coordinator.pipelines import INTERNAL_ERROR

REFUSALS = frozenset({"prompt-refused", "prompt-too-long", "content-filter", "REFUSED"})
"""Reasons of a Rejection, and the verdict, that say that a service did not take an item."""
UNDECIDED: Final = "INFRASTRUCTURE"
"""In place of a verdict, where the sandbox kept failing on a program."""
SIZE = 50
"""Items of a stage that are looked at: the last ones that were worked on now, not those that were there."""
LEAST = 20
"""Nothing is concluded from fewer."""
SHARE = 0.5

_WORDS = {
    "error": "ended in internal errors",
    "refusal": "were refused",
    "fault": "have no verdict, since the sandbox kept failing",
}


class BreakerOpened(Exception):
    """The run is to be paused; the message says why and what to do."""


class Breaker:
    """Looks at each item that a stage finishes."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[str]] = {}
        self.reason = ""
        """Why it opened. Empty: it has not."""

    def open(self, reason: str) -> None:
        """Stop the run for a reason that needs no counting. The first one stays."""
        self.reason = self.reason or reason

    def saw(self, stage: str, reason: str | None, detail: str = "") -> None:
        """A stage finished an item.

        Args:
            stage: The stage's name.
            reason: Why the item was dropped, or None.
            detail: In words: the last one is part of the breaker's reason.
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
