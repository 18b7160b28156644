"""Consistent hashing: which worker a prefix group belongs to, with few changes when workers come and go."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator

_POINTS = 64
"""Points of one worker on the ring. More make the workers' shares more even."""


class Ring:
    """Workers as points on a circle of hashes; a key belongs to the first worker at or after its own hash.

    If a worker leaves, only its keys move. (Karger et al., "Consistent hashing and random trees", STOC 1997.)

    Args:
        workers: Names of the workers. They alone determine the ring, so all gateways agree.
    """

    def __init__(self, workers: Iterable[str]) -> None:
        points = sorted((_hash(f"{worker}#{number}"), worker) for worker in workers for number in range(_POINTS))
        self._hashes = [point for point, _ in points]
        self._owners = [worker for _, worker in points]

    def walk(self, key: str) -> Iterator[str]:
        """Yield every worker once, the key's own first, then in the order in which they would inherit it."""
        start = bisect.bisect_left(self._hashes, _hash(key))
        seen: set[str] = set()
        for step in range(len(self._owners)):
            worker = self._owners[(start + step) % len(self._owners)]
            if worker not in seen:
                seen.add(worker)
                yield worker


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
