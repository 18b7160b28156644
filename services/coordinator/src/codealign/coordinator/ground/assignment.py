"""The interface between a controller and the work it runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.faults import RunStopped
from codealign.coordinator.ground.lease import Lease
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.ground.store import LeaseLost, RunStore
from codealign.coordinator.ground.waiting import Waiting


class PauseWanted(Exception):
    """Raised by work that must be paused until someone intervenes; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """The result of work that succeeded."""

    message: str
    version: str = ""
    """The published version, or "" if there is none."""


@dataclass
class Assignment:
    """A subject assigned to this coordinator while it holds the subject's lease."""

    subject: pb.Record
    store: RunStore
    """Writes to the collection named by the subject's id, under the lease."""
    lease: Lease
    waiting: Waiting
    standing: Standing
    message: str = ""
    """Current activity, shown to users."""
    stopping: bool = False
    """Whether starting new work is forbidden."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be a new request."""
    work: asyncio.Task[Outcome] | None = None

    def gate(self) -> None:
        """Check that new work may start.

        Raises:
            RunStopped: No new work may start.
        """
        if self.stopping:
            raise RunStopped("the work is stopping: no new work may start")

    def say(self, message: str) -> None:
        """Set the activity shown to users."""
        self.message = message

    async def record(self, event: pb.RunEvent, store: RunStore | None = None) -> None:
        """Write an event, filling in the number of the request it answers.

        Args:
            event: The event.
            store: Writes it under another lease. None: under the assignment's.

        Raises:
            LeaseLost: Another coordinator wrote the event with this number.
        """
        event.request = max(self.standing.number, 0)
        number = self.standing.event.attempt + 1 if self.standing.event else 0
        given = pb.Record(kind=pb.KIND_RUN_EVENT, parents=[self.subject.id], attempt=number, run_event=event)
        kept = await (store or self.store).append(given)
        if kept.run_event != event:
            raise LeaseLost(f"another coordinator wrote event {number} of {self.subject.id}")
        self.standing = replace(self.standing, event=kept)


class Workload(Protocol):
    """The work for one kind of subject."""

    @property
    def kind(self) -> pb.Kind.ValueType:
        """Kind of the subject's record."""

    @property
    def prefix(self) -> str:
        """Prefix of the lease's name, such as "run"."""

    @property
    def repeatable(self) -> bool:
        """Whether a request after a success starts the work again."""

    async def work(self, assignment: Assignment) -> Outcome:
        """Do the work, or resume it. May be cancelled at any moment.

        Raises:
            RunStopped: The gate stopped the work.
            RunFailed: The work cannot continue without manual intervention.
            PauseWanted: The work must be paused.
            LeaseLost: The lease was lost; raised by the store.
            CodeAlignError: A service is unavailable (the work is retried shortly) or refused for good (the work fails).
        """


@runtime_checkable
class Stoppable(Protocol):
    """A workload that delegates to other services, which must be notified when it stops."""

    async def stop(self, assignment: Assignment) -> None:
        """Notify the other services before a pause or a cancellation is recorded. Retried after a failure.

        Raises:
            CodeAlignError: A service is unavailable; the call is retried.
        """
