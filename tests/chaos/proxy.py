"""A TCP proxy between two services that can simulate network faults."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024
_START_SECONDS = 10.0


class Proxy:
    """Forwards bytes to a local port, in its own thread.

    Args:
        target: The port that it forwards to. While nobody listens there, connections are closed at once.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listens = threading.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._delay = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listens.wait(_START_SECONDS):
            raise RuntimeError("the proxy does not listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def address(self) -> str:
        """host:port to connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Number of open sockets, two per connection."""
        return len(self._open)

    def drop(self) -> None:
        """Reset every connection."""
        self._do(self._abort)

    def refuse(self, refuses: bool) -> None:
        """Reset open and new connections, or accept them again."""

        def switch() -> None:
            self._refuses = refuses
            self._abort()

        self._do(switch)

    def hold(self, holds: bool) -> None:
        """Keep connections open but forward nothing, like a machine that has vanished from the network."""
        self._do(self._flows.clear if holds else self._flows.set)

    def slow(self, seconds: float) -> None:
        """Delay every chunk by this number of seconds; 0 ends the delay."""

        def switch() -> None:
            self._delay = seconds

        self._do(switch)

    def _do(self, change: Callable[[], object]) -> None:
        """Apply a change in the loop's thread, and return once it is made."""
        done = threading.Event()

        def make() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(make)
        if not done.wait(_START_SECONDS):
            raise RuntimeError("the proxy hangs")

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        self._loop.run_forever()
        server.close()
        self._abort()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back}
        self._open |= pair
        pumps = [asyncio.ensure_future(self._pump(reader, back)), asyncio.ensure_future(self._pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._open -= pair
            for each in pair:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
