"""Adaptive concurrency limits for services.

A window asks its service for its number of slots and keeps them filled, with a short queue behind them so that no slot
idles until the next call. If the service's queue is longer (it has other callers too), the window shrinks by its share
of the excess. A refusal (RESOURCE_EXHAUSTED, UNAVAILABLE) halves the window; each success widens it by a step. This is
the additive increase and multiplicative decrease of Chiu and Jain (1989), under which several callers converge to equal
shares.
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
"""Initial limit, until the service has reported its capacity."""
POLL_SECONDS = 1.0
_POLL_TIMEOUT = 5.0
_QUEUE_SHARE = 4
"""Divisor of the slots that gives the queue length behind them."""
_STEPS = 16
"""Divisor of the ceiling: a round of successes, about one per unit in use, widens the window by one such step."""

_FEWEST_ITEMS, _MOST_ITEMS = 16, 4096


@dataclass(frozen=True)
class Load:
    """The load that a service reports."""

    slots: int
    """Units processed at once, or 0 if not reported."""
    waiting: int
    """Units from all callers that are waiting for a slot."""
    working: int
    """Units in slots."""


class Window:
    """A limit on concurrent units of work (samples, programs) at a service, granted in first-come order.

    `async with window` holds one unit.

    Args:
        ask: Returns the service's load.
        most: Maximum concurrent units. 0: as the service reports.
        clock: Time source in seconds, for the age of the last answer.
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
        """Units released since the last decrease, so that one congestion causes one decrease."""

    @property
    def limit(self) -> int:
        """Current maximum of concurrent units."""
        return max(1, int(self._limit))

    async def acquire(self, units: int = 1) -> None:
        """Wait for capacity for these units. More units than the window allows are granted when nothing is in use."""
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
        """Release units."""
        self.in_use -= units
        self._back_since += units
        if succeeded and units:
            step = max(1.0, self._ceiling / _STEPS)
            self._limit = min(float(self._ceiling), self._limit + step * units / self._limit)
        self._admit()

    def refused(self) -> None:
        """Halve the window after a refusal or an outage. Refusals within one round of calls count once."""
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
        """Hold units and yield a function that releases one of them. The rest are released when the context ends."""
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
        """Ask the service if its last answer is old. Only one caller asks; the others wait for it."""
        now = self._clock()
        if self._asking:
            await self._answered.wait()
            return
        if self._asked_at is not None and now - self._asked_at < POLL_SECONDS:
            return
        first = self._asked_at is None
        self._asking, self._asked_at = True, now
        try:
            async with asyncio.timeout(_POLL_TIMEOUT):
                load = await self._ask()
        except (CodeAlignError, TimeoutError):
            return  # the calls themselves report the error
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
    """Return how many items to process at once: twice the windows' limits, so that the windows stay full.

    Args:
        most: Maximum. 0: as the windows allow, within memory limits.
        windows: Windows of the services that an item passes through.
    """
    following = min(_MOST_ITEMS, max(_FEWEST_ITEMS, 2 * sum(window.limit for window in windows)))
    return min(following, most) if most else following


def of_inference(inference: Inference, most: int = 0) -> Window:
    """Return a window of samples at the engine."""

    async def ask() -> Load:
        load = await inference.get_load(inf.GetLoadRequest())
        return Load(load.slots, load.waiting, load.running)

    return Window(ask, most=most)


def of_sandbox(sandbox: Sandbox, most: int = 0) -> Window:
    """Return a window of programs at the sandbox."""

    async def ask() -> Load:
        capacity = await sandbox.get_capacity(sb.GetCapacityRequest())
        return Load(capacity.slots, capacity.queued, capacity.busy)

    return Window(ask, most=most)
