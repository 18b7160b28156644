"""Random draws that a text alone determines: the same on every machine, in every process, in every order."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A sequence of draws.

    Only `random.Random.random` is used: of the module's methods it alone keeps its sequence from one Python to the
    next, says its documentation.
    """

    def __init__(self, *parts: object) -> None:
        """Draw what these determine."""
        text = "\0".join(map(str, parts))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._random = random.Random(int.from_bytes(digest))  # noqa: S311 (no secret)

    def share(self) -> float:
        """In [0, 1)."""
        return self._random.random()

    def below(self, end: int) -> int:
        """In [0, end)."""
        return int(self._random.random() * end)

    def pick(self, choices: Sequence[T]) -> T:
        """One of these."""
        return choices[self.below(len(choices))]

    def quantile(self, values: Sequence[float]) -> float:
        """A value of a distribution.

        Args:
            values: Its quantiles at equal steps, from the least value to the greatest.
        """
        at = self._random.random() * (len(values) - 1)
        low = int(at)
        high = min(low + 1, len(values) - 1)
        return values[low] + (values[high] - values[low]) * (at - low)

    def weighted(self, weights: dict[str, float]) -> str:
        """A name, each as often as its weight says. The weights' sum is above 0."""
        at = self._random.random() * sum(weights.values())
        for name, weight in weights.items():
            at -= weight
            if at < 0:
                return name
        return next(reversed(weights))
