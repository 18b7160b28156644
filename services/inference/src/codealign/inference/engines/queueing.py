"""The limit on waiting samples and the retry delay for refused callers."""

from __future__ import annotations

import time

from codealign.common.errors import ResourceExhausted

_MAX_RETRY_SECONDS = 60.0


class WaitingBound:
    """Limits the number of waiting samples; estimates the retry delay from the rate of completions.

    Args:
        max_waiting: Maximum number of waiting samples.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._seconds_per_completion = 1.0
        self._last_completion = time.perf_counter()

    def require_room(self, waiting: int, more: int) -> None:
        """Refuse `more` samples if too many are waiting; an idle engine accepts a request of any size.

        Raises:
            ResourceExhausted: The queue is full; carries the delay after which the waiting samples should have started.
        """
        if waiting and waiting + more > self._max_waiting:
            delay = min(_MAX_RETRY_SECONDS, max(1.0, waiting * self._seconds_per_completion))
            raise ResourceExhausted(
                f"{waiting} samples are waiting and {more} more would exceed the limit of {self._max_waiting} "
                f"(CODEALIGN_INFERENCE_MAX_WAITING): try again in {delay:.0f} s",
                retry_after=delay,
            )

    def finished_one(self) -> None:
        """Record that a completion finished."""
        now = time.perf_counter()
        self._seconds_per_completion += 0.1 * (min(now - self._last_completion, 60.0) - self._seconds_per_completion)
        self._last_completion = now
