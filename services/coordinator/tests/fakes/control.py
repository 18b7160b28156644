"""What a test does to the calls of a fake: errors, absence, waiting, and counts of what was called."""

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
    """A clock that tests move. Call it for the time, in seconds."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Control:
    """The calls of one fake. A method bears the port's name ("append", "generate", ...)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: Counter[str] = Counter()
        """Begun, by method, failed ones included."""
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        """The highest value that `in_flight` had."""
        self.away: Exception | None = None
        """Every call fails with it, as with a service that is down."""
        self.before: Callable[[str, Message], None] | None = None
        """Called with method and request before a call has any effect; what it raises is the call's error."""
        self.after: Callable[[str, Message], None] | None = None
        """Called when a call has had its effect: what it raises is as an answer that was lost."""
        self._errors: dict[str, deque[Exception]] = {}
        self._held: dict[str, asyncio.Event] = {}

    def fail(self, method: str, *errors: Exception) -> None:
        """The next calls of a method fail with these, one each, before they have any effect."""
        self._errors.setdefault(method, deque()).extend(errors)

    def go_away(self, message: str = "connection refused") -> None:
        """Fail every call with UNAVAILABLE until `come_back`."""
        self.away = Unavailable(f"cannot reach the {self.name} service ({message})", retry_after=0.0)

    def come_back(self) -> None:
        """Undo `go_away`."""
        self.away = None

    def hold(self, method: str) -> asyncio.Event:
        """Calls of a method wait, before they have any effect, until the event is set."""
        return self._held.setdefault(method, asyncio.Event())

    @contextlib.asynccontextmanager
    async def call(self, method: str, request: Message) -> AsyncIterator[None]:
        """One call, around its effect."""
        self.calls[method] += 1
        self.in_flight[method] += 1
        self.most_in_flight[method] = max(self.most_in_flight[method], self.in_flight[method])
        try:
            await asyncio.sleep(0)  # as over a network, other tasks run meanwhile
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
