"""Random draws determined by a text alone: the same on every machine, in every process and in any order."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A sequence of random draws.

    Uses only `random.Random.random`, the one method whose sequence Python documents as stable across versions.

    Args:
        *parts: Values that determine the sequence.
    """

    def __init__(self, *parts: object) -> None:
        text = "\0".join(map(str, parts))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._random = random.Random(int.from_bytes(digest))  # noqa: S311 (not used for secrets)

    def share(self) -> float:
        """Draw a number in [0, 1)."""
        return self._random.random()

    def below(self, end: int) -> int:
        """Draw an integer in [0, end)."""
        return int(self._random.random() * end)

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of the choices."""
        return choices[self.below(len(choices))]

    def quantile(self, values: Sequence[float]) -> float:
        """Draw a value from a distribution.

        Args:
            values: The distribution's quantiles at equal steps, in ascending order.
        """
        at = self._random.random() * (len(values) - 1)
        low = int(at)
        high = min(low + 1, len(values) - 1)
        return values[low] + (values[high] - values[low]) * (at - low)

    def weighted(self, weights: dict[str, float]) -> str:
        """Draw a name with probability proportional to its weight. The sum of the weights must be positive."""
        at = self._random.random() * sum(weights.values())
        for name, weight in weights.items():
            at -= weight
            if at < 0:
                return name
        return next(reversed(weights))
