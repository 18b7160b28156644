"""Current demand for work, and whether any replica is required."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator


class Demand:
    """Number of waiting and running pieces of work. Replicas are required while there are some, and for a while after.

    Args:
        idle_seconds: How long replicas stay required after the last piece.
    """

    def __init__(self, idle_seconds: float = 0.0) -> None:
        self.count = 0
        self._idle_seconds = idle_seconds
        self._active_until = float("-inf")
        self._changed = asyncio.Event()

    def set(self, count: int) -> None:
        """Set the number of pieces that wait or run now."""
        before, self.count = self.count, count
        if bool(before) != bool(count):
            self.require(self._idle_seconds)

    def require(self, seconds: float) -> None:
        """Require a replica for this time, whatever the count is."""
        self._active_until = max(self._active_until, time.monotonic() + seconds)
        # Everyone who waits now holds this event; later callers get the next one.
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def is_active(self) -> bool:
        """Whether any replica is required."""
        return self.count > 0 or time.monotonic() < self._active_until

    async def activity(self, until: asyncio.Event) -> AsyncIterator[bool]:
        """Yield whether any replica is required: now, and again whenever that changes.

        Args:
            until: Ends the iteration when it is set.
        """
        told: bool | None = None
        while not until.is_set():
            changed, active = self._changed, self.is_active
            if active is not told:
                told = active
                yield active
                continue
            lapses = active and not self.count
            await _first(changed, until, seconds=self._active_until - time.monotonic() if lapses else None)


async def _first(*events: asyncio.Event, seconds: float | None) -> None:
    """Wait until one of the events is set or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
