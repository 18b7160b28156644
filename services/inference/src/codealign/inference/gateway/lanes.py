"""The workers of one model, and which of them gets a sample.

A prefix group belongs to one worker, so that its prompts find their common prefix in that worker's cache. This is
consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018, arXiv 1608.01350): a worker takes
its own groups' samples only up to a constant factor over the mean load. Beyond it a sample goes to the least loaded
worker instead of the next one on the ring, because a worker's batch is a few samples, and an idle slot costs more than
a prefix computed twice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from codealign.inference.gateway.ring import Ring

_BOUND = 1.25
"""Factor over the mean load up to which a worker takes its own groups' samples."""
_FREE_SHARE = 0.25
"""Fraction of a worker's slots that its own groups may always use: when little runs, the mean is below one sample."""
_SURPLUS = 8
"""A worker gets one sample more than it has slots for every so many slots, so that none is idle for a round trip."""


_REMEMBERED = 10_000
"""Prefix groups whose worker is remembered instead of looked up."""


@dataclasses.dataclass(eq=False, slots=True)
class Lane:
    """One model at one worker."""

    worker: str
    slots: int
    engine: str = ""
    """Name of the model whose engine generates: its own, or that of the base of an adapter."""
    in_flight: int = 0
    is_open: bool = True
    """Whether the worker may get samples. Calls in progress go on in any case."""
    held_until: float = 0.0
    """The worker was full and gets no samples until then."""
    progress: float = 0.0
    """When it last answered, or was given a sample while it had none."""

    @property
    def load(self) -> float:
        """Samples in flight per slot."""
        return self.in_flight / self.slots

    def has_room(self, now: float) -> bool:
        """Return whether it can get a sample now."""
        return self.is_open and now >= self.held_until and self.in_flight < self.slots + max(1, self.slots // _SURPLUS)


class Lanes:
    """The lanes of one model."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._open: list[Lane] = []
        self._ring = Ring(())
        self._favourites: dict[str, str] = {}

    @property
    def slots(self) -> int:
        """Slots of the open lanes."""
        return sum(lane.slots for lane in self._open)

    @property
    def is_open(self) -> bool:
        """Whether any worker may get samples, now or when it has room."""
        return bool(self._open)

    @property
    def all(self) -> list[Lane]:
        """Open and closed lanes."""
        return list(self._lanes.values())

    def get(self, worker: str) -> Lane | None:
        """Return a worker's lane."""
        return self._lanes.get(worker)

    def open(self, worker: str, slots: int, engine: str = "") -> None:
        """Add a worker, or let it get samples again."""
        lane = self._lanes.setdefault(worker, Lane(worker, slots, is_open=False))
        lane.slots, lane.engine = max(1, slots), engine
        if not lane.is_open:
            lane.is_open, lane.held_until = True, 0.0
            self._changed()

    def close(self, worker: str) -> None:
        """Give a worker no more samples. Its lane disappears with its last sample."""
        lane = self._lanes.get(worker)
        if lane is not None and lane.is_open:
            lane.is_open = False
            self._changed()
        self.tidy(worker)

    def tidy(self, worker: str) -> None:
        """Forget a closed lane without samples."""
        lane = self._lanes.get(worker)
        if lane is not None and not lane.is_open and not lane.in_flight:
            del self._lanes[worker]

    def has_room(self, now: float) -> bool:
        """Return whether any worker can get a sample now."""
        return any(lane.has_room(now) for lane in self._open)

    def prefers(self, prefix_key: str, now: float) -> bool:
        """Return whether a prefix group's own worker can get one of its samples now. Without a key, any can."""
        return not prefix_key or self._favourite_with_room(prefix_key, now) is not None

    def choose(self, prefix_key: str, now: float, avoid: Collection[str] = ()) -> tuple[Lane | None, bool]:
        """Choose the worker for a sample.

        Args:
            prefix_key: Key of its prefix group. Empty: none.
            now: The time.
            avoid: Workers to use only if there is no other, not even a full one.

        Returns:
            The lane, or None if no worker has room, and whether it is not the prefix group's own.
        """
        lanes = [lane for lane in self._open if lane.worker not in avoid] or self._open
        favourite = self._favourite_with_room(prefix_key, now) if prefix_key else None
        if favourite is not None and favourite in lanes:
            return favourite, False
        fit = [lane for lane in lanes if lane.has_room(now)]
        return min(fit, key=lambda lane: lane.load, default=None), bool(prefix_key and fit)

    def _favourite_with_room(self, prefix_key: str, now: float) -> Lane | None:
        name = self._favourites.get(prefix_key)
        if name is None:
            if len(self._favourites) >= _REMEMBERED:
                self._favourites.clear()
            name = next(self._ring.walk(prefix_key), "")
            self._favourites[prefix_key] = name
        lane = self._lanes.get(name)
        if lane is None or not lane.has_room(now) or lane.in_flight >= self._bound(lane):
            return None
        return lane

    def _bound(self, lane: Lane) -> int:
        running, slots = sum(each.in_flight for each in self._open), self.slots
        return max(math.ceil(_FREE_SHARE * lane.slots), math.ceil(_BOUND * (running + 1) * lane.slots / slots))

    def _changed(self) -> None:
        self._open = [lane for lane in self._lanes.values() if lane.is_open]
        self._ring = Ring(lane.worker for lane in self._open)
        self._favourites.clear()
