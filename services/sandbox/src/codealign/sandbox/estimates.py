"""How long executions took of late, and what follows for those that would wait."""

from __future__ import annotations

import collections
import statistics

_WINDOW = 100
_ENOUGH = 20
"""Executions below which a quartile says little."""
_UNKNOWN_SECONDS = 1.0
"""Taken for the mean before the first execution has ended."""
_SHORTEST_DELAY, _LONGEST_DELAY = 0.1, 30.0


class ServiceTimes:
    """Of the last executions, the seconds that each held its slot."""

    def __init__(self) -> None:
        self._recent: collections.deque[float] = collections.deque(maxlen=_WINDOW)

    def add(self, seconds: float) -> None:
        """Takes note of an execution that has ended."""
        self._recent.append(seconds)

    @property
    def mean(self) -> float:
        """Seconds of one execution."""
        return statistics.fmean(self._recent) if self._recent else _UNKNOWN_SECONDS

    def wait(self, ahead: int, slots: int) -> float:
        """Seconds until so many executions are through: their number times the recent mean, over the slots."""
        return ahead * self.mean / max(slots, 1)

    def least_wait(self, ahead: int, slots: int) -> float:
        """Seconds that a program with so many before it will wait even if all goes well.

        Every one before it as quick as the fastest quarter of the recent ones, in full rounds of all slots. 0 where
        too little is known to say.
        """
        if len(self._recent) < _ENOUGH or not slots:
            return 0.0
        return (ahead // slots) * statistics.quantiles(self._recent, n=4)[0]


def retry_delay(seconds: float) -> float:
    """An estimate as the delay of a RetryInfo: neither so short that callers spin, nor beyond what is known."""
    return min(max(seconds, _SHORTEST_DELAY), _LONGEST_DELAY)
