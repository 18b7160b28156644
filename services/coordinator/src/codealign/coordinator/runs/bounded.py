"""A task group with a bounded number of concurrent tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self


class BoundedTasks:
    """A task group whose `start` waits for capacity, so that pending work is never held as tasks.

    Args:
        limit: Returns the current maximum of concurrent tasks. Called again as tasks end.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._group = asyncio.TaskGroup()
        self._running = 0
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._group.__aexit__(*error)

    async def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Start a task as soon as there is capacity for it."""
        try:
            while self._running >= max(1, self._limit()):
                self._changed.clear()
                await self._changed.wait()
            task = self._group.create_task(work)
        except BaseException:
            work.close()
            raise
        self._running += 1
        task.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[object]) -> None:
        self._running -= 1
        self._changed.set()
