"""How many executions are wanted now, and whether runners are needed at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator


class Demand:
    """Executions that wait or run. Some, or some a moment ago: runners are needed."""

    def __init__(self, idle_seconds: float = 0.0) -> None:
        """Begins with none, and inactive.

        Args:
            idle_seconds: For so long after the last execution runners are still said to be needed.
        """
        self.count = 0
        self._idle_seconds = idle_seconds
        self._active_until = float("-inf")
        self._changed = asyncio.Event()

    def set(self, count: int) -> None:
        """Takes note of how many wait or run now."""
        before, self.count = self.count, count
        if bool(before) != bool(count):
            self._active_until = time.monotonic() + self._idle_seconds
            # Everyone who waits has this event; whoever comes later gets the next one.
            self._changed.set()
            self._changed = asyncio.Event()

    @property
    def is_active(self) -> bool:
        """Whether runners are needed."""
        return self.count > 0 or time.monotonic() < self._active_until

    async def activity(self, until: asyncio.Event) -> AsyncIterator[bool]:
        """Whether runners are needed: now, and again whenever that changes.

        Args:
            until: Ends it when it is set.
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
    """Until one of them is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
