"""Runners, the jobs of each, and the choice of a runner for a job."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import math
from collections.abc import Collection, Hashable
from typing import Protocol

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common import traces

LOCAL = "local"
"""Machine name of all runners started by the gateway."""
_REMOTE = "grpc"


class Runner(Protocol):
    """What the dispatcher requires of a runner of any backend."""

    @property
    def description(self) -> pb.Runner:
        """The description in its hello."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether the runner can take a job."""
        ...

    async def wait_ended(self) -> None:
        """Wait until the runner is gone."""
        ...

    async def execute(self, request: pb.ExecuteRequest) -> pb.Result:
        """Run one job.

        Raises:
            RunnerLost: The runner ended before returning a result.
        """
        ...


@dataclasses.dataclass(eq=False, slots=True)
class Job:
    """One request on its way to a result."""

    request: pb.ExecuteRequest
    caller: str
    deadline: float
    """When the caller stops waiting, on the monotonic clock; infinite if never."""
    outcome: asyncio.Future[pb.Result]
    waiting_since: float
    queue_seconds: float = 0.0
    """Total time in the queue, in seconds."""
    faults: list[str] = dataclasses.field(default_factory=list)
    """Description of each failed attempt, with the runner's name."""
    failed_places: set[Hashable] = dataclasses.field(default_factory=set)
    """Places of the failed attempts."""
    context: traces.Context = dataclasses.field(default_factory=traces.current_context)
    """The caller's trace."""
    call: contextvars.Context = dataclasses.field(default_factory=contextvars.copy_context)
    """Context variables of the call. Another job's end may start this one, and log events must not have its ids."""
    machine: str = ""
    """If set, the job must run alone on this machine."""
    reason: str = ""
    """Why the job runs alone."""
    task: asyncio.Task[pb.Result] | None = None
    """Set while a runner has the job."""
    alarm: asyncio.TimerHandle | None = None
    """Timer that fires shortly before the deadline."""


@dataclasses.dataclass(eq=False, slots=True)
class Station:
    """A runner and its jobs."""

    runner: Runner
    place: Hashable
    """Stays the same when the runner is restarted."""
    jobs: set[Job] = dataclasses.field(default_factory=set)
    is_stopping: bool = False
    """The runner is being stopped and its jobs are taken away."""

    @property
    def takes_jobs(self) -> bool:
        """Whether the runner can take a job now or when a slot becomes free."""
        return self.runner.is_alive and not self.is_stopping

    @property
    def machine(self) -> str:
        """Name shared by runners that share processors."""
        description = self.runner.description
        return description.name if description.backend == _REMOTE else LOCAL

    @property
    def has_room(self) -> bool:
        """Whether the runner can take a job now."""
        return self.takes_jobs and len(self.jobs) < self.runner.description.slots

    @property
    def load(self) -> float:
        """Fraction of the slots in use."""
        return len(self.jobs) / max(self.runner.description.slots, 1)


class Stations:
    """All available runners."""

    def __init__(self) -> None:
        self._all: list[Station] = []

    def add(self, station: Station) -> None:
        """Add a runner."""
        self._all.append(station)

    def remove(self, station: Station) -> None:
        """Remove a runner."""
        self._all.remove(station)

    @property
    def slots(self) -> int:
        """Maximum concurrent executions."""
        return sum(station.runner.description.slots for station in self._all if station.takes_jobs)

    @property
    def busy(self) -> int:
        """Current executions."""
        return sum(len(station.jobs) for station in self._all)

    def machines(self) -> set[str]:
        """Return the machines that have a runner that can take jobs."""
        return {station.machine for station in self._all if station.takes_jobs}

    def at_work(self, machine: str) -> bool:
        """Return whether anything runs on a machine."""
        return any(station.jobs for station in self._all if station.machine == machine)

    def exclusive(self) -> set[str]:
        """Return the machines on which a job runs alone."""
        return {job.machine for station in self._all for job in station.jobs if job.machine}

    def choose(self, held: Collection[str], avoid: Collection[Hashable] = (), machine: str = "") -> Station | None:
        """Return the least loaded runner with a free slot, or None.

        Args:
            held: Machines that take no jobs now.
            avoid: Places to use only if there is no runner elsewhere, not even a busy one.
            machine: The only machine to use. Empty: any.
        """
        there = [station for station in self._all if station.takes_jobs and machine in ("", station.machine)]
        there = [station for station in there if station.place not in avoid] or there
        best, lowest = None, math.inf
        for station in there:
            if station.has_room and station.machine not in held and station.load < lowest:
                best, lowest = station, station.load
        return best
