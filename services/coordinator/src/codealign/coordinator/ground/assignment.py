"""What a controller gives to the work it does, and what work is."""

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
    """The work asks to be paused until a person has looked; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """How work succeeded."""

    message: str
    version: str = ""
    """The version that was published."""


@dataclass
class Assignment:
    """A subject that this coordinator works on, for as long as it holds its lease."""

    subject: pb.Record
    store: RunStore
    """In the collection of the subject's id, under the lease."""
    lease: Lease
    waiting: Waiting
    standing: Standing
    message: str = ""
    """What it is at, for a person."""
    stopping: bool = False
    """No new work may start."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody may have asked for something."""
    work: asyncio.Task[Outcome] | None = None

    def gate(self) -> None:
        """Raises RunStopped once no new work may start."""
        if self.stopping:
            raise RunStopped("no new work may start")

    def say(self, message: str) -> None:
        """Tell a person what it is at."""
        self.message = message

    async def record(self, event: pb.RunEvent) -> None:
        """Write an event; the request's number is filled in.

        Raises:
            LeaseLost: Another coordinator wrote the event of this number.
        """
        event.request = max(self.standing.number, 0)
        number = self.standing.event.attempt + 1 if self.standing.event else 0
        given = pb.Record(kind=pb.KIND_RUN_EVENT, parents=[self.subject.id], attempt=number, run_event=event)
        kept = await self.store.append(given)
        if kept.run_event != event:
            raise LeaseLost(f"another coordinator wrote event {number} of {self.subject.id}")
        self.standing = replace(self.standing, event=kept)


class Workload(Protocol):
    """What is done about one kind of subject."""

    @property
    def kind(self) -> pb.Kind.ValueType:
        """Of the subject's record."""

    @property
    def prefix(self) -> str:
        """Of its lease's name: "run"."""

    @property
    def repeatable(self) -> bool:
        """A request after a success begins the work again."""

    async def work(self, assignment: Assignment) -> Outcome:
        """Do it, or go on with it. May be cancelled at any moment.

        Raises:
            RunStopped: By the gate.
            RunFailed: It cannot go on without a person.
            PauseWanted: It is to be paused.
            LeaseLost: By the store.
            CodeAlignError: A service was away (it begins again in a moment), or refused for good (it has failed).
        """


@runtime_checkable
class Stoppable(Protocol):
    """A workload that has other services work for it, which are to be told when it stops."""

    async def stop(self, assignment: Assignment) -> None:
        """A pause or a cancellation is about to be recorded: tell the other services. Called again after a failure.

        Raises:
            CodeAlignError: A service is away; it is tried again.
        """
