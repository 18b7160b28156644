"""Measures how long programs waited for a processor, and provides a clock that excludes this time.

Inside gVisor, a process that is ready to run counts as running. Only the outside knows how much processor time the
sandbox really received: a gateway on the same machine reports it regularly. The difference between the time for which
programs were ready and the time that the sandbox received is time spent waiting.

A program cannot inflate this time. Only processor time taken by others on the machine contributes. A program that
always had a processor has not waited, however many it wanted. The clock is stopped only for so long that an execution
ends within `TIME_FACTOR` times its limit.
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
    """Time of its start, or of the last comparison with the time received."""
    ready: float = 0.0
    """Seconds for which its processes were ready to run, summed over processes."""
    compared: float = 0.0
    """The part of `ready` already compared."""
    waited: float = 0.0
    stalled: float = 0.0


class Waits:
    """Waiting times of all executions in a sandbox.

    Args:
        now: The clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}
        self._ended = 0.0
        """Uncompared ready seconds of executions that have ended since the last comparison."""
        self._given: float | None = None

    @property
    def are_seen(self) -> bool:
        """Whether processor time is reported from outside the sandbox."""
        return self._given is not None

    def begin(self, slot: int) -> None:
        """Record the start of an execution in a slot."""
        with self._lock:
            self._runs[slot] = _Run(self._now())

    def note(self, slot: int, ready_seconds: float) -> None:
        """Record the ready seconds of the execution in a slot since its start, summed over its processes."""
        with self._lock:
            run = self._runs[slot]
            run.ready = max(run.ready, ready_seconds)

    def end(self, slot: int) -> None:
        """Record the end of the execution in a slot."""
        with self._lock:
            run = self._runs.pop(slot)
            self._ended += run.ready - run.compared

    def given(self, seconds: float) -> None:
        """Record how much processor time the machine has given the sandbox.

        Args:
            seconds: Processor seconds since the start of the sandbox.
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
        """Return the processor seconds that a slot's execution was ready for but did not get, over all processes."""
        with self._lock:
            return self._runs[slot].waited

    def stalled(self, slot: int) -> float:
        """Return the wall-clock seconds during which the execution in a slot was ready but had no processor."""
        with self._lock:
            return self._runs[slot].stalled


class Clock:
    """Wall clock of one execution, without the time in which it had no processor.

    Args:
        started: Start time on the monotonic clock.
        limit: Seconds that may pass on this clock.
    """

    def __init__(self, started: float, limit: float) -> None:
        self._started = started
        self._limit = limit
        self.stalled = 0.0
        """Seconds that do not count. Never decreases."""

    def stop_for(self, stalled: float) -> None:
        """Set the total number of seconds that do not count."""
        self.stalled = max(self.stalled, stalled)

    @property
    def deadline(self) -> float:
        """Time on the monotonic clock at which the limit is reached, given what is known now."""
        return self._started + min(self._limit + self.stalled, self._limit * TIME_FACTOR)
