"""Threads for blocking work: SQL and files."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Separate threads for reading, writing and publishing, so that no kind of work waits behind another.

    Work that nobody waits for any more is dropped if it has not started. A transaction that has started is finished,
    since each one is short.

    Args:
        readers: Threads for reading.
        writers: Threads for writing.
    """

    def __init__(self, *, readers: int, writers: int) -> None:
        self._readers = ThreadPoolExecutor(readers, "read")
        self._writers = ThreadPoolExecutor(writers, "write")
        self._publishers = ThreadPoolExecutor(1, "publish")

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that only reads."""
        return await _run(self._readers, functools.partial(function, *args, **kwargs))

    async def write(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that writes to the database."""
        return await _run(self._writers, functools.partial(function, *args, **kwargs))

    async def publish(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run long work, one at a time."""
        return await _run(self._publishers, functools.partial(function, *args, **kwargs))

    async def stream(self, items: Iterator[T]) -> AsyncGenerator[T]:
        """Yield from a blocking generator, drawing each item on demand. Closes it at the end."""
        end = object()
        context = contextvars.copy_context()
        drawn: Future[object] = Future()
        drawn.set_result(None)
        try:
            while True:
                drawn = self._readers.submit(functools.partial(context.run, functools.partial(next, items, end)))
                if (item := await asyncio.wrap_future(drawn)) is end:
                    return
                yield item  # type: ignore[misc]  # not `end`, so a T
        finally:
            # A caller that disconnected must not leave a file open.
            if drawn.done():
                await asyncio.shield(self.read(_close, items))
            else:  # a running generator cannot be closed here: its own thread does it
                drawn.add_done_callback(lambda _: _close(items))

    def close(self) -> None:
        """Wait for running work and drop the rest."""
        for group in (self._publishers, self._writers, self._readers):
            group.shutdown(wait=True, cancel_futures=True)


async def _run(group: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    # Carries the request and run ids into the thread's log lines.
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(group, functools.partial(context.run, work))


def _close(items: Iterator[object]) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()
