"""The bound on what waits, and the delay that a refused caller is told."""

from __future__ import annotations

import time

from codealign.common.errors import ResourceExhausted

_MAX_RETRY_SECONDS = 60.0


class WaitingBound:
    """Refuses what would wait too long; learns the pace from what finishes."""

    def __init__(self, max_waiting: int) -> None:
        """Let so many samples wait."""
        self._max_waiting = max_waiting
        self._seconds_per_completion = 1.0
        self._last_completion = time.perf_counter()

    def require_room(self, waiting: int, more: int) -> None:
        """Refuse `more` samples where `waiting` wait already; an idle engine takes a request of any size.

        Raises:
            ResourceExhausted: with the delay after which those that wait now should have started.
        """
        if waiting and waiting + more > self._max_waiting:
            delay = min(_MAX_RETRY_SECONDS, max(1.0, waiting * self._seconds_per_completion))
            raise ResourceExhausted(
                f"{waiting} samples wait already and {more} more would exceed the bound of {self._max_waiting} "
                f"(CODEALIGN_INFERENCE_MAX_WAITING): try again in {delay:.0f} s",
                retry_after=delay,
            )

    def finished_one(self) -> None:
        """A completion was written."""
        now = time.perf_counter()
        self._seconds_per_completion += 0.1 * (min(now - self._last_completion, 60.0) - self._seconds_per_completion)
        self._last_completion = now
