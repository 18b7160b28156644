"""How much may be at a service at once: what it says that it can do, and what it does not refuse.

A window asks its service for its slots and keeps them filled, with a small queue behind them so that no slot waits for
the next call. Where the service's queue is longer than that (other callers use it too), the window gives back its
share of the excess. A refusal (RESOURCE_EXHAUSTED, UNAVAILABLE) halves it; work that succeeds widens it again, step by
step. That is the additive increase and multiplicative decrease of Chiu and Jain (1989), under which several callers
come to equal shares.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import CodeAlignError
from codealign.coordinator.ground.ports import Inference, Sandbox

START = 16
"""Units at once at a service that has not said yet what it can do."""
POLL_SECONDS = 1.0
_POLL_TIMEOUT = 5.0
_QUEUE_SHARE = 4
"""The queue behind the slots is a quarter of them."""
_STEPS = 16
"""Successes of so many sixteenths of the ceiling widen the window by one of them."""

_FEWEST_ITEMS, _MOST_ITEMS = 16, 4096


@dataclass(frozen=True)
class Load:
    """What a service says of itself."""

    slots: int
    """Units that it works on at once. 0: it does not say."""
    waiting: int
    """Units that wait for a slot, whoever sent them."""
    working: int
    """Units in slots."""


class Window:
    """A bound on the units of work (samples, programs) at a service, in the order in which they were asked for.

    `async with window` is one unit.

    Args:
        ask: Asks the service for its load.
        most: Units at once, whatever the service says. 0: as it says.
        clock: Seconds, for how old the last answer is.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[Load]], *, most: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask, self._most, self._clock = ask, most, clock
        self._ceiling = self._bounded(START)
        self._limit = float(self._ceiling)
        self.in_use = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._asked_at: float | None = None
        self._asking = False
        self._answered = asyncio.Event()
        self._halved = False
        self._back_since = 0
        """Units that came back since the window was last halved: one congestion is one decrease."""

    @property
    def limit(self) -> int:
        """Units at once, now."""
        return max(1, int(self._limit))

    async def acquire(self, units: int = 1) -> None:
        """Wait until there is room for so many units. More than the whole window get it alone."""
        await self._follow()
        if not self._waiters and self._has_room(units):
            self.in_use += units
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((units, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(units, succeeded=False)
            else:
                self._waiters = deque(waiter for waiter in self._waiters if waiter[1] is not future)
                self._admit()
            raise

    def release(self, units: int = 1, *, succeeded: bool = True) -> None:
        """So many units are done."""
        self.in_use -= units
        self._back_since += units
        if succeeded and units:
            step = max(1.0, self._ceiling / _STEPS)
            self._limit = min(float(self._ceiling), self._limit + step * units / self._limit)
        self._admit()

    def refused(self) -> None:
        """The service refused a call for want of room, or is away. Refusals of one round of calls count once."""
        if self._halved and self._back_since < self.limit:
            return
        self._limit, self._halved, self._back_since = max(1.0, self._limit / 2), True, 0

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release(succeeded=kind is None)

    @contextlib.asynccontextmanager
    async def units(self, count: int) -> AsyncIterator[Callable[[], None]]:
        """Hold so many units; what is given releases one of them, the context's end the others."""
        await self.acquire(count)
        left = count

        def done() -> None:
            nonlocal left
            left -= 1
            self.release()

        try:
            yield done
        finally:
            self.release(left, succeeded=False)

    def _has_room(self, units: int) -> bool:
        return not self.in_use or self.in_use + units <= self.limit

    def _admit(self) -> None:
        while self._waiters and self._has_room(self._waiters[0][0]):
            units, future = self._waiters.popleft()
            if not future.done():
                self.in_use += units
                future.set_result(None)

    async def _follow(self) -> None:
        """Ask the service, where its last answer is old. One caller does; at the very first, the others wait for it."""
        now = self._clock()
        if self._asking:
            await self._answered.wait()
            return
        if self._asked_at is not None and now - self._asked_at < POLL_SECONDS:
            return
        first = self._asked_at is None
        self._asking, self._asked_at = True, now
        try:
            load = await asyncio.wait_for(self._ask(), _POLL_TIMEOUT)
        except (CodeAlignError, TimeoutError):
            return  # the calls themselves find out what is wrong
        finally:
            self._asking = False
            self._answered.set()
        if load.slots > 0:
            self._heed(load, first=first)
            self._admit()

    def _heed(self, load: Load, *, first: bool) -> None:
        queue = max(1, load.slots // _QUEUE_SHARE)
        before, self._ceiling = self._ceiling, self._bounded(load.slots + queue)
        if first or (self._ceiling > before and self._limit >= before):
            self._limit = float(self._ceiling)
        excess, total = load.waiting - queue, load.waiting + load.working
        if excess > 0 and total > 0:
            share = min(1.0, self.in_use / total)
            self._limit = max(1.0, self._limit - excess * share)
        self._limit = min(self._limit, float(self._ceiling))

    def _bounded(self, units: int) -> int:
        return min(units, self._most) if self._most else units


def items_in_flight(most: int, *windows: Window) -> int:
    """Items that are worked on at once, now: twice what the windows let out, so that these stay full.

    Args:
        most: At most, whatever the windows say. 0: as they say, within what memory allows.
        windows: Of the services that an item goes through.
    """
    following = min(_MOST_ITEMS, max(_FEWEST_ITEMS, 2 * sum(window.limit for window in windows)))
    return min(following, most) if most else following


def of_inference(inference: Inference, most: int = 0) -> Window:
    """A window of samples at the engine."""

    async def ask() -> Load:
        load = await inference.get_load(inf.GetLoadRequest())
        return Load(load.slots, load.waiting, load.running)

    return Window(ask, most=most)


def of_sandbox(sandbox: Sandbox, most: int = 0) -> Window:
    """A window of programs at the sandbox."""

    async def ask() -> Load:
        capacity = await sandbox.get_capacity(sb.GetCapacityRequest())
        return Load(capacity.slots, capacity.queued, capacity.busy)

    return Window(ask, most=most)
