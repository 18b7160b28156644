"""Batching of items from many tasks into one call at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from codealign.common import traces
from codealign.common.errors import InvalidArgument

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MAX_BATCH = 500
"""Maximum records or ids per call; the contract allows 1,000."""
MAX_BATCH_BYTES = 8 * 2**20
"""Maximum size of the records in one append, in bytes. A larger record is sent alone."""


class _Queued(NamedTuple, Generic[ItemT, ResultT]):
    """An item that waits to be sent."""

    item: ItemT
    future: asyncio.Future[ResultT]
    span: traces.SpanContext
    """Span of the work that waits for it."""


class Batches(Generic[ItemT, ResultT]):
    """Batches of items, sent one call at a time in the order in which they were added.

    Args:
        send: Makes the call and returns results in the order of the items. Raises InvalidArgument if an item is
            refused.
        size: Returns the size of an item in bytes.
    """

    def __init__(
        self, send: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]], size: Callable[[ItemT], int]
    ) -> None:
        self._send, self._size = send, size
        self._queue: deque[_Queued[ItemT, ResultT]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, item: ItemT) -> asyncio.Future[ResultT]:
        """Queue an item and return a future for its result."""
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._queue.append(_Queued(item, future, traces.current()))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return future

    async def all(self, items: Iterable[ItemT]) -> list[ResultT]:
        """Return the results of several items in order, or raise the first error once all are settled."""
        futures = [self.put(item) for item in items]
        # Await one after another: results arrive batch by batch, so a `gather` callback per item is wasted time.
        results: list[ResultT] = []
        failed: Exception | None = None
        for future in futures:
            try:
                results.append(await future)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return results

    async def close(self) -> None:
        """Stop sending; items still queued are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for queued in self._queue:
            queued.future.cancel()
        self._queue.clear()

    async def _work(self) -> None:
        while self._queue:
            batch, size = [self._queue.popleft()], 0
            size = self._size(batch[0].item)
            while self._queue and len(batch) < MAX_BATCH:
                size += self._size(self._queue[0].item)
                if size > MAX_BATCH_BYTES:
                    break
                batch.append(self._queue.popleft())
            try:
                await self._settle(batch)
            except BaseException:
                for queued in batch:
                    queued.future.cancel()
                raise

    async def _settle(self, batch: Sequence[_Queued[ItemT, ResultT]]) -> None:
        """Send a batch. If it is refused, send its halves, so that only the offending item gets the error."""
        try:
            with traces.batch_span("batch", [queued.span for queued in batch], {"items": len(batch)}):
                results = await self._send([queued.item for queued in batch])
        except InvalidArgument as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            middle = len(batch) // 2
            await self._settle(batch[:middle])
            await self._settle(batch[middle:])
        except Exception as error:
            _fail(batch, error)
        else:
            for queued, result in zip(batch, results, strict=True):
                if not queued.future.done():
                    queued.future.set_result(result)


def _fail(batch: Sequence[_Queued[ItemT, ResultT]], error: Exception) -> None:
    for queued in batch:
        if not queued.future.done():
            queued.future.set_exception(error)
