"""How long programs were ready to run while the machine gave them no processor, and the clock that leaves that out.

Inside gVisor a process that is ready counts as running. What the machine really gave the box only its outside knows: a
gateway on the same machine says so from time to time. What the programs of the box were ready for and the box did not
get, they waited for.

A program cannot make that time up. Only what others on the machine took makes a difference between the two; a program
that had a processor all the time has waited for none, however many it wanted; and the clock stops at most so long that
an execution ends within `TIME_FACTOR` times its limit.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

from codealign.runner.profiles import TIME_FACTOR


@dataclasses.dataclass(slots=True)
class _Run:
    """One execution."""

    since: float
    """When it began, or when it was last compared with what the box got."""
    ready: float = 0.0
    """Seconds in which its processes were ready to run, each counted for itself."""
    compared: float = 0.0
    """Of these, what has been compared."""
    waited: float = 0.0
    stalled: float = 0.0


class Waits:
    """Of all executions of a box."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Nothing runs, and nothing is known of the machine.

        Args:
            now: The clock.
        """
        self._now = now
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}
        self._ended = 0.0
        """Seconds that executions which have ended since the last comparison were ready for."""
        self._given: float | None = None

    @property
    def are_seen(self) -> bool:
        """Whether someone outside the box says what it gets."""
        return self._given is not None

    def begin(self, slot: int) -> None:
        """An execution begins in a slot."""
        with self._lock:
            self._runs[slot] = _Run(self._now())

    def note(self, slot: int, ready_seconds: float) -> None:
        """What the supervisor sees of the execution in a slot: seconds since its start, all its processes together."""
        with self._lock:
            run = self._runs[slot]
            run.ready = max(run.ready, ready_seconds)

    def end(self, slot: int) -> None:
        """The execution in a slot has ended."""
        with self._lock:
            run = self._runs.pop(slot)
            self._ended += run.ready - run.compared

    def given(self, seconds: float) -> None:
        """What the machine has given the box.

        Args:
            seconds: Of processor time, since the box began.
        """
        with self._lock:
            before, self._given = self._given, seconds
            runs = list(self._runs.values())
            wanted = self._ended + sum(run.ready - run.compared for run in runs)
            self._ended = 0.0
            now = self._now()
            for run in runs:
                ready, span = run.ready - run.compared, now - run.since
                run.compared, run.since = run.ready, now
                if before is None or wanted <= 0:
                    continue
                had = min(ready, max(seconds - before, 0.0) * ready / wanted)
                run.waited += ready - had
                run.stalled += max(0.0, min(ready - had, span - had))

    def waited(self, slot: int) -> float:
        """Processor seconds that the execution in a slot was ready for and did not get, all its processes together."""
        with self._lock:
            return self._runs[slot].waited

    def stalled(self, slot: int) -> float:
        """Seconds of wall-clock time in which the execution in a slot was ready to run and had no processor."""
        with self._lock:
            return self._runs[slot].stalled


class Clock:
    """The wall clock of one execution, without the seconds in which it had no processor."""

    def __init__(self, started: float, limit: float) -> None:
        """Begins.

        Args:
            started: When, on the monotonic clock.
            limit: Seconds that may pass on this clock.
        """
        self._started = started
        self._limit = limit
        self.stalled = 0.0
        """Seconds that do not count. They only become more."""

    def stop_for(self, stalled: float) -> None:
        """So many seconds in all do not count."""
        self.stalled = max(self.stalled, stalled)

    @property
    def deadline(self) -> float:
        """When the time is over, as far as is known now."""
        return self._started + min(self._limit + self.stalled, self._limit * TIME_FACTOR)
