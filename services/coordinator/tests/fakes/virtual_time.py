"""Virtual time for tests: when every task waits, the event loop's clock jumps to the next deadline."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec
from unittest.mock import patch

from fakes.control import Clock

P = ParamSpec("P")
_BEYOND = 1e-6
"""Seconds past a deadline to jump to, so that rounding never leaves the clock before it."""
_MOST_BUSY = 100_000
"""Maximum number of consecutive loop iterations in which no time passes."""


class _JumpingSelector(selectors.DefaultSelector):
    """Selector that advances virtual time instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._busy = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits, and nothing will ever wake one of them")
        if timeout > 0:
            self.now += timeout + _BEYOND
            self._busy = 0
        self._busy += 1
        if self._busy > _MOST_BUSY:
            raise RuntimeError("a task spins: time stands still")
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Event loop with a virtual clock. For tasks that wait for tasks and timers, not for sockets."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._jumping.now


class LoopClock(Clock):
    """Clock of the fake store that follows the running loop's time."""

    def __call__(self) -> float:
        return self.now + asyncio.get_running_loop().time()


async def _at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test on its own event loop in virtual time. The loop does not wait for threads."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def whole() -> Any:
            return await test(*args, **kwargs)

        with patch.object(asyncio, "to_thread", _at_once), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(whole())

    return run
