"""Coordinators that a test starts, drains, kills and disconnects from the store, with work whose steps are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.clients import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS
from codealign.common.errors import Unavailable
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment, Outcome
from codealign.coordinator.ground.control import Controllers
from codealign.coordinator.ground.requests import Standing
from fakes.dataset import FakeDataset

LEASE_SECONDS = 15.0
KEEPALIVE_SECONDS = (KEEPALIVE_MS + KEEPALIVE_TIMEOUT_MS) / 1000
_TASKS: set[asyncio.Task[None]] = set()


class Link:
    """A coordinator's connection to the store."""

    def __init__(self, dataset: FakeDataset) -> None:
        self._dataset = dataset
        self.away = False
        """Whether every call fails."""
        self.cut = False
        """Whether no call ever returns."""
        self.silent = False
        """Whether calls get no response, as from a dead node: keepalive ends each after a while."""
        self.lost = 0
        """Number of following appends whose responses are lost."""
        self.errors: dict[str, list[Exception]] = {}
        """Errors of the next calls, by method."""

    def __getattr__(self, name: str) -> Callable[[Any], Awaitable[Any]]:
        method = getattr(self._dataset, name)

        async def call(request: Any) -> Any:
            if self.cut:
                await asyncio.Event().wait()
            if self.silent:
                await asyncio.sleep(KEEPALIVE_SECONDS)
                raise Unavailable("dataset: ping timeout", retry_after=1.0)
            if self.away:
                raise Unavailable("dataset: connection refused", retry_after=1.0)
            if errors := self.errors.get(name):
                raise errors.pop(0)
            answer = await method(request)
            if self.cut:
                await asyncio.Event().wait()
            if name == "append" and self.lost:
                self.lost -= 1
                raise Unavailable("dataset: connection reset", retry_after=1.0)
            return answer

        return call


class Steps:
    """Work with a number of steps. Each step takes time, then appends a record under the lease."""

    kind = pb.KIND_RUN
    prefix = "run"
    repeatable = False

    def __init__(self, holder: str, *, steps: int = 10, seconds: float = 1.0) -> None:
        self.holder, self.steps, self.seconds = holder, steps, seconds
        self.begun = 0
        self.raises: list[BaseException] = []
        """Exceptions that the next attempts raise after their first step."""

    async def work(self, assignment: Assignment) -> Outcome:
        self.begun += 1
        for step in range(self.steps):
            assignment.gate()
            await asyncio.sleep(self.seconds)
            log = pb.WorkLog(busy_seconds={"responses": self.seconds})
            key = f"{self.holder}/{assignment.lease.token.token}/{step}"
            await assignment.store.append(
                pb.Record(kind=pb.KIND_WORK_LOG, parents=[assignment.subject.id], key=key, work_log=log)
            )
            if self.raises:
                raise self.raises.pop(0)
        return Outcome("done", version="v-1")


class Coordinator:
    """The controllers of one process."""

    def __init__(self, dataset: FakeDataset, holder: str, *, drain_seconds: float = 20.0, **work: Any) -> None:
        self.link = Link(dataset)
        self.work = Steps(holder, **work)
        self.controllers = Controllers(self.link, [self.work], holder, LEASE_SECONDS, drain_seconds)  # type: ignore[arg-type]
        self.draining = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        _TASKS.add(self._task)  # the event loop holds only weak references to tasks
        self._task.add_done_callback(_TASKS.discard)

    async def _run(self) -> None:
        async with self.controllers.working(self.draining):
            await self.draining.wait()

    async def drain(self) -> None:
        """Drain as on SIGTERM, and return once all leases are released."""
        self.draining.set()
        await self._task

    def kill(self) -> None:
        """Act as killed by SIGKILL: no further call reaches the store."""
        self.link.cut = True


class Subjects:
    """Runs in the fake store and requests for them."""

    def __init__(self, dataset: FakeDataset) -> None:
        self.dataset = dataset

    async def create(self, seed: int = 0) -> str:
        run = records.complete(pb.Record(kind=pb.KIND_RUN, run=pb.Run(seed=seed)))
        wanted = pb.RunRequest(wanted=pb.RUN_STATE_RUNNING, reason="started")
        await requests.append(self.dataset, run.id, wanted, 0, first=[run])
        return run.id

    async def want(self, subject: str, wanted: pb.RunState.ValueType, by: Coordinator | None = None) -> None:
        """Request a state through a coordinator, or as one that is gone by now."""
        if by:
            await by.controllers.want(subject, wanted, "a person")
        else:
            await requests.want(self.dataset, subject, wanted, "a person")

    async def standing(self, subject: str) -> Standing:
        return await requests.standing(self.dataset, subject)

    def events(self, subject: str) -> list[str]:
        """Return the states in a subject's events, in order."""
        found = [each for each in self.dataset.of_kind(pb.KIND_RUN_EVENT) if each.parents[0] == subject]
        ordered = sorted(found, key=lambda record: record.attempt)
        return [pb.RunState.Name(each.run_event.state).removeprefix("RUN_STATE_") for each in ordered]

    def requests(self, subject: str) -> list[pb.Record]:
        found = [each for each in self.dataset.of_kind(pb.KIND_RUN_REQUEST) if each.parents[0] == subject]
        return sorted(found, key=lambda record: record.attempt)

    async def until(self, subject: str, state: pb.RunState.ValueType, within: float = 600.0) -> Standing:
        """Wait until the subject is in a state."""
        async with asyncio.timeout(within):
            while (standing := await self.standing(subject)).state != state:  # noqa: ASYNC110 - the store sends no notifications
                await asyncio.sleep(0.1)
        return standing
