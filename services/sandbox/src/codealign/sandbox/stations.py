"""Who runs what: the runners, the jobs that each has, and the choice of a runner for a job."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Collection, Hashable
from typing import Protocol

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

LOCAL = "local"
"""The machine of every runner that the gateway itself starts."""
_REMOTE = "grpc"


class Runner(Protocol):
    """What the dispatcher needs of a runner, whatever its backend."""

    @property
    def description(self) -> pb.Runner:
        """What its hello said."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it can take a job."""
        ...

    async def wait_ended(self) -> None:
        """Until it is gone."""
        ...

    async def execute(self, request: pb.ExecuteRequest) -> pb.Result:
        """Runs one job.

        Raises:
            RunnerLost: It ended before the outcome.
        """
        ...


@dataclasses.dataclass(eq=False, slots=True)
class Job:
    """One request on its way to its result."""

    request: pb.ExecuteRequest
    caller: str
    deadline: float
    """When the caller stops waiting, on the monotonic clock; infinite where it never does."""
    outcome: asyncio.Future[pb.Result]
    waiting_since: float
    queue_seconds: float = 0.0
    """Of all its waits."""
    faults: list[str] = dataclasses.field(default_factory=list)
    """What happened at each attempt that failed, with the runner's name."""
    failed_places: set[Hashable] = dataclasses.field(default_factory=set)
    """Where these attempts were."""
    machine: str = ""
    """Set: to be run with nothing else on this machine."""
    reason: str = ""
    """Why it runs alone."""
    task: asyncio.Task[pb.Result] | None = None
    """Set while a runner has it."""
    alarm: asyncio.TimerHandle | None = None
    """Goes off shortly before the deadline."""


@dataclasses.dataclass(eq=False, slots=True)
class Station:
    """A runner and the jobs that it has."""

    runner: Runner
    place: Hashable
    """Stays the same when the runner is started again."""
    jobs: set[Job] = dataclasses.field(default_factory=set)
    is_leaving: bool = False
    """It is being stopped: what it has is taken away."""

    @property
    def takes_jobs(self) -> bool:
        """Whether it can take a job, now or when a slot is free."""
        return self.runner.is_alive and not self.is_leaving

    @property
    def machine(self) -> str:
        """Runners that share processors share this name."""
        description = self.runner.description
        return description.name if description.backend == _REMOTE else LOCAL

    @property
    def has_room(self) -> bool:
        """Whether it can take a job now."""
        return self.takes_jobs and len(self.jobs) < self.runner.description.slots

    @property
    def load(self) -> float:
        """The share of its slots that is taken."""
        return len(self.jobs) / max(self.runner.description.slots, 1)


class Stations:
    """All runners that are there."""

    def __init__(self) -> None:
        self._all: list[Station] = []

    def add(self, station: Station) -> None:
        """A runner is there."""
        self._all.append(station)

    def remove(self, station: Station) -> None:
        """It is gone."""
        self._all.remove(station)

    @property
    def slots(self) -> int:
        """Executions at once."""
        return sum(station.runner.description.slots for station in self._all if station.takes_jobs)

    @property
    def busy(self) -> int:
        """Executions now."""
        return sum(len(station.jobs) for station in self._all)

    def machines(self) -> set[str]:
        """Those that have a runner which can take jobs."""
        return {station.machine for station in self._all if station.takes_jobs}

    def at_work(self, machine: str) -> bool:
        """Whether anything runs there."""
        return any(station.jobs for station in self._all if station.machine == machine)

    def exclusive(self) -> set[str]:
        """The machines on which a job runs that must have nothing beside it."""
        return {job.machine for station in self._all for job in station.jobs if job.machine}

    def choose(self, held: Collection[str], avoid: Collection[Hashable] = (), machine: str = "") -> Station | None:
        """The least loaded runner with a free slot.

        Args:
            held: Machines that take nothing now.
            avoid: Places that are taken only where there is no runner elsewhere, not even a busy one.
            machine: The only one that may be used. Empty: any.
        """
        there = [station for station in self._all if station.takes_jobs and machine in ("", station.machine)]
        there = [station for station in there if station.place not in avoid] or there
        best, lowest = None, math.inf
        for station in there:
            if station.has_room and station.machine not in held and station.load < lowest:
                best, lowest = station, station.load
        return best
