"""Control of a fake's calls by a test: injected errors, outages, delays, and call counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from codealign.common.errors import Unavailable


@dataclass
class Clock:
    """A clock moved by tests. Calling it returns the time in seconds."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.now += seconds


class Control:
    """Control of one fake's calls. Methods are named as in the port ("append", "generate", ...)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: Counter[str] = Counter()
        """Number of started calls by method, including failed ones."""
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        """Maximum of `in_flight` so far."""
        self.away: Exception | None = None
        """Error that every call raises, as if the service were down."""
        self.before: Callable[[str, Message], None] | None = None
        """Called with method and request before a call takes effect; an exception becomes the call's error."""
        self.after: Callable[[str, Message], None] | None = None
        """Called after a call took effect; an exception acts like a lost response."""
        self._errors: dict[str, deque[Exception]] = {}
        self._held: dict[str, asyncio.Event] = {}

    def fail(self, method: str, *errors: Exception) -> None:
        """Make the next calls of a method fail with these errors, one each, before they take effect."""
        self._errors.setdefault(method, deque()).extend(errors)

    def go_away(self, message: str = "connection refused") -> None:
        """Fail every call with UNAVAILABLE until `come_back`."""
        self.away = Unavailable(f"cannot reach the {self.name} service ({message})", retry_after=0.0)

    def come_back(self) -> None:
        """Undo `go_away`."""
        self.away = None

    def hold(self, method: str) -> asyncio.Event:
        """Make calls of a method wait, before they take effect, until the returned event is set."""
        return self._held.setdefault(method, asyncio.Event())

    @contextlib.asynccontextmanager
    async def call(self, method: str, request: Message) -> AsyncIterator[None]:
        """Wrap the effect of one call."""
        self.calls[method] += 1
        self.in_flight[method] += 1
        self.most_in_flight[method] = max(self.most_in_flight[method], self.in_flight[method])
        try:
            await asyncio.sleep(0)  # other tasks run meanwhile, as with a real network call
            if held := self._held.get(method):
                await held.wait()
            if self.away is not None:
                raise self.away
            if errors := self._errors.get(method):
                raise errors.popleft()
            if self.before is not None:
                self.before(method, request)
            yield
            if self.after is not None:
                self.after(method, request)
        finally:
            self.in_flight[method] -= 1
