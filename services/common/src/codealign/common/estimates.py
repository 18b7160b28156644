"""Durations of recent work (executions, samples), and the waiting times estimated from them."""

from __future__ import annotations

import collections
import statistics

_WINDOW = 100
_ENOUGH = 20
"""With fewer executions than this, a quartile is not meaningful."""
_UNKNOWN_SECONDS = 1.0
"""Assumed mean duration before the first has ended."""
_SHORTEST_DELAY, _LONGEST_DELAY = 0.1, 30.0


class ServiceTimes:
    """Seconds for which each of the last pieces of work held its slot."""

    def __init__(self) -> None:
        self._recent: collections.deque[float] = collections.deque(maxlen=_WINDOW)

    def add(self, seconds: float) -> None:
        """Record a finished one."""
        self._recent.append(seconds)

    @property
    def mean(self) -> float:
        """Mean duration in seconds."""
        return statistics.fmean(self._recent) if self._recent else _UNKNOWN_SECONDS

    def wait(self, ahead: int, slots: int) -> float:
        """Return the expected seconds until `ahead` others finish: their number times the mean, over the slots."""
        return ahead * self.mean / max(slots, 1)

    def least_wait(self, ahead: int, slots: int) -> float:
        """Return the minimum seconds that one with `ahead` others before it will wait.

        Assumes that each of them is as fast as the fastest quarter of the recent ones, and that all slots are always
        in use. Returns 0 if too little is known.
        """
        if len(self._recent) < _ENOUGH or not slots:
            return 0.0
        return (ahead // slots) * statistics.quantiles(self._recent, n=4)[0]


def retry_delay(seconds: float) -> float:
    """Clamp an estimate to a RetryInfo delay: not so short that callers spin, and not beyond what is known."""
    return min(max(seconds, _SHORTEST_DELAY), _LONGEST_DELAY)
