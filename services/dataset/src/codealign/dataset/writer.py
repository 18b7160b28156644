"""Group commit: all waiting write requests are carried out together.

A transaction's statements and its commit, which waits for the disk, cost about as much for a hundred requests as for
one. While one group is carried out, the next one gathers. A single request does not wait.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import cast

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.dataset.metrics import BATCH_RECORDS, BATCH_REQUESTS
from codealign.dataset.storage.append import carry_out
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.writes import Append, Appended, Join, Result, Write
from codealign.dataset.workers import Workers

# Limit of a transaction beyond its first request: later requests must not wait too long, nor exhaust the memory.
MAX_GROUP = 2000
MAX_GROUP_BYTES = 16 * 2**20


class GroupWriter:
    """Carries out appends and joins. Belongs to one event loop.

    Args:
        database: The store of records.
        workers: Threads for blocking work.
    """

    def __init__(self, database: Database, workers: Workers) -> None:
        self._database = database
        self._workers = workers
        self._waiting: deque[tuple[Write, asyncio.Future[Result]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def append(self, write: Append) -> list[Appended]:
        """Add records; all of them, or none. Raises the same errors as `storage.append.append`."""
        return cast(list[Appended], await self._carry_out(write))

    async def join(self, write: Join) -> list[pb.Record]:
        """Make records members of a collection. Raises the same errors as `storage.append.join`."""
        return cast(list[pb.Record], await self._carry_out(write))

    async def _carry_out(self, write: Write) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, future))
        if self._writing is None:
            # Without the caller's context, because the group serves several callers.
            self._writing = asyncio.get_running_loop().create_task(self._write_all(), context=contextvars.Context())
        return await future

    async def _write_all(self) -> None:
        try:
            await asyncio.sleep(0)  # collect requests that arrived together
            while group := self._next_group():
                try:
                    writes = [write for write, _ in group]
                    BATCH_REQUESTS.observe(len(writes))
                    BATCH_RECORDS.observe(sum(map(len, writes)))
                    results = await self._workers.write(carry_out, self._database, writes)
                except asyncio.CancelledError:  # the service is shutting down
                    self._waiting.extendleft(reversed(group))
                    raise
                except Exception as error:
                    results = [error] * len(group)
                for (_, future), result in zip(group, results, strict=True):
                    if future.done():  # its caller disconnected
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._writing = None
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()

    def _next_group(self) -> list[tuple[Write, asyncio.Future[Result]]]:
        """Return the waiting requests in order, dropping those that nobody waits for any more."""
        group: list[tuple[Write, asyncio.Future[Result]]] = []
        records = size = 0
        while self._waiting:
            write, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
                continue
            records += len(write)
            size += write.size_bytes()
            if group and (records > MAX_GROUP or size > MAX_GROUP_BYTES):
                break
            group.append(self._waiting.popleft())
        return group
