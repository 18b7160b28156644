"""Tests in virtual time: when every task waits, the loop's clock jumps to the next deadline."""

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
"""So much later than a deadline it is when its timer fires, so that no rounding leaves the clock before it."""
_MOST_BUSY = 100_000
"""Turns of the loop without any time passing."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: time passes instead."""

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
    """An event loop whose clock jumps. For tasks that wait for tasks and for time, not for sockets."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now


class LoopClock(Clock):
    """The running loop's time, for the fake store."""

    def __call__(self) -> float:
        return self.now + asyncio.get_running_loop().time()


async def _at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test on a loop of its own, in virtual time, which does not wait for threads: there are none."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def whole() -> Any:
            return await test(*args, **kwargs)

        with patch.object(asyncio, "to_thread", _at_once), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(whole())

    return run
