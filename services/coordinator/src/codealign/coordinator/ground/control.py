"""Controllers that reconcile the requested and actual state of runs, loops and evaluations.

A RunRequest records the requested state, a RunEvent the actual state. Handlers append the request and return.
Discovery finds subjects whose states differ; one controller at a time, holding the store's lease "<prefix>/<id>", works
until they agree. The controller renews the lease, reacquires it if it expired and nobody took it, and always releases
it. All state is in the store: a coordinator that is killed at any moment loses nothing, and another one continues.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from codealign.api.dataset.v1 import dataset_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError
from codealign.common.logs import get_logger
from codealign.common.text import encodable
from codealign.coordinator import metrics
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment, Outcome, PauseWanted, Stoppable, Workload
from codealign.coordinator.ground.discovery import Discovery
from codealign.coordinator.ground.faults import TRANSIENT, RunFailed, RunStopped
from codealign.coordinator.ground.lease import RELEASE_SECONDS, Lease
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.ground.store import LeaseLost, RunStore, patiently
from codealign.coordinator.ground.waiting import Waiting

log = get_logger(__name__)
LOOK_SECONDS = 2.0
"""Seconds between discovery polls; bounds how long a subject released by another coordinator waits."""
READ_AGAIN_SECONDS = 30.0
"""Seconds after which a controller rereads its requests even without a notification."""
RETRY_SECONDS = 2.0
"""Delay in seconds before work that ended because a service was unavailable starts again."""
MESSAGE_CHARS = 2000
"""Maximum characters of an unexpected error's message that an event keeps."""


class Controllers:
    """The controllers of one coordinator.

    Args:
        dataset: The store.
        workloads: One for each kind of subject.
        holder: Unique name of this process.
        lease_seconds: Time without renewal after which another coordinator may take over.
        drain_seconds: Grace period for in-flight work at shutdown.
    """

    def __init__(
        self, dataset: Dataset, workloads: Sequence[Workload], holder: str, lease_seconds: float, drain_seconds: float
    ) -> None:
        self._dataset, self._holder = dataset, holder
        self._lease_seconds, self._drain_seconds = lease_seconds, drain_seconds
        self._workloads = {workload.kind: workload for workload in workloads}
        self._discovery = Discovery(dataset)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._poked = asyncio.Event()
        self._draining = self._blind = False
        self.assigned: dict[str, Assignment] = {}
        """Subjects that this coordinator is working on, by id."""

    def add(self, *workloads: Workload) -> None:
        """Add workloads. Call this before `working`."""
        self._workloads.update({workload.kind: workload for workload in workloads})

    def states(self) -> Counter[tuple[str, str]]:
        """Count the assigned subjects by workload and state, for metrics. May be called from another thread."""
        found = Counter[tuple[str, str]]()
        for assignment in list(self.assigned.values()):
            state = "stopping" if assignment.stopping else "waiting" if assignment.waiting.text else "working"
            found[self._workloads[assignment.subject.kind].prefix, state] += 1
        return found

    async def want(self, subject: str, wanted: pb.RunState.ValueType, reason: str, *, repeatable: bool = False) -> None:
        """Record the requested state of a subject unless it is already requested; see `requests.want`."""
        if request := await requests.want(self._dataset, subject, wanted, reason, repeatable=repeatable):
            self.poke(subject, request.attempt)

    def poke(self, subject: str, number: int) -> None:
        """Handle a request that was appended by this process without waiting for discovery."""
        self._discovery.add(subject, number)
        if assignment := self.assigned.get(subject):
            assignment.changed.set()
        self._poked.set()

    @contextlib.asynccontextmanager
    async def working(self, draining: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Work inside this context. Drain when it ends, or earlier when `draining` is set."""
        looking = asyncio.create_task(self._look_for_ever())
        drain = asyncio.create_task(self._drain_after(draining or asyncio.Event(), looking))
        try:
            yield
        finally:
            if draining is None or not draining.is_set():
                drain.cancel()
                await self._drain(looking)
            else:
                await asyncio.wait([drain])

    async def _drain_after(self, draining: asyncio.Event, looking: asyncio.Task[None]) -> None:
        await draining.wait()
        await self._drain(looking)

    async def _drain(self, looking: asyncio.Task[None]) -> None:
        """Let in-flight work finish, then release all leases."""
        self._draining = True
        looking.cancel()
        for assignment in self.assigned.values():
            assignment.stopping = True
        await self._wait(self._drain_seconds)
        for assignment in self.assigned.values():
            if assignment.work:
                assignment.work.cancel()
        await self._wait(2 * RELEASE_SECONDS)
        for task in self._tasks.values():
            task.cancel()
        await self._wait(RELEASE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        if tasks := list(self._tasks.values()):
            await asyncio.wait(tasks, timeout=seconds)

    async def _look_for_ever(self) -> None:
        clock = asyncio.get_running_loop().time
        next_look, due = clock(), True
        while True:
            self._poked.clear()
            if due:
                await self._look()
                next_look = clock() + LOOK_SECONDS
            for subject in list(self._discovery.open):
                if subject not in self._tasks:
                    self._start(subject)
            try:
                async with asyncio.timeout_at(next_look):
                    await self._poked.wait()
                due = False
            except TimeoutError:
                due = True

    async def _look(self) -> None:
        try:
            for subject in await self._discovery.look():
                if assignment := self.assigned.get(subject):
                    assignment.changed.set()
            self._blind = False
        except CodeAlignError as error:
            if not self._blind:  # log an outage once
                log.warning("discovery_failed", message=error.message)
            self._blind = True
        except Exception:
            log.exception("discovery_failed")

    def _start(self, subject: str) -> None:
        number = self._discovery.open[subject]

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.pop(subject, None)
            if self._discovery.open.get(subject, number) > number:  # a request arrived at the last moment
                self._poked.set()

        self._tasks[subject] = asyncio.create_task(self._control(subject))
        self._tasks[subject].add_done_callback(ended)

    async def _control(self, subject: str) -> None:
        """Work on a subject until its states agree. If that is not possible now, discovery returns to it."""
        try:
            found = (await self._dataset.get(api.GetRequest(ids=[subject]))).records
            workload = self._workloads.get(found[0].kind) if found else None
            if workload is None:  # created by a newer coordinator
                self._discovery.settle(subject, self._discovery.open.get(subject, 0))
                return
            waiting = Waiting()
            name = f"{workload.prefix}/{subject}"
            lease = Lease(self._dataset, name, self._holder, self._lease_seconds, waiting)
            if await lease.acquire():
                await self._hold(found[0], workload, lease, waiting)
        except LeaseLost as error:
            log.warning("lease_lost", subject=subject, message=str(error))
        except CodeAlignError as error:
            if not (self._blind and isinstance(error, TRANSIENT)):  # discovery has already logged the outage
                log.warning("controller_failed", subject=subject, message=error.message)
        except Exception:
            log.exception("controller_failed", subject=subject)

    async def _hold(self, subject: pb.Record, workload: Workload, lease: Lease, waiting: Waiting) -> None:
        """Do all work that requires the lease."""
        keeping = asyncio.create_task(lease.keep())
        try:
            async with RunStore(self._dataset, subject.id, lease, waiting) as store:
                assignment = Assignment(subject, store, lease, waiting, Standing(), stopping=self._draining)
                self.assigned[subject.id] = assignment
                await self._reconcile(assignment, workload, keeping)
        finally:
            self.assigned.pop(subject.id, None)
            keeping.cancel()
            await asyncio.wait([keeping])
            if not keeping.cancelled():
                keeping.exception()  # retrieve the exception: a lost lease has been handled by now
            await lease.release()

    async def _reconcile(self, assignment: Assignment, workload: Workload, keeping: asyncio.Task[None]) -> None:
        subject = assignment.subject.id
        while True:
            assignment.standing = await patiently(lambda: requests.standing(self._dataset, subject), assignment.waiting)
            standing = assignment.standing
            if standing.settled(repeatable=workload.repeatable):
                self._discovery.settle(subject, standing.number)
                return
            assert standing.request is not None
            if standing.wanted != pb.RUN_STATE_RUNNING:
                if isinstance(workload, Stoppable):
                    await workload.stop(assignment)
                reason = standing.request.run_request.reason
                await self._end(assignment, workload, pb.RunEvent(state=standing.wanted, message=reason))
                continue
            if self._draining:
                return
            if standing.state != pb.RUN_STATE_RUNNING or standing.known != standing.number:
                message = standing.request.run_request.reason
                await assignment.record(pb.RunEvent(state=pb.RUN_STATE_RUNNING, message=message))
            event = await self._carry_out(assignment, workload, keeping)
            if event is not None:
                await self._end(assignment, workload, event)

    async def _end(self, assignment: Assignment, workload: Workload, event: pb.RunEvent) -> None:
        await assignment.record(event)
        state = pb.RunState.Name(event.state)
        metrics.WORKLOAD_ENDS.labels(workload.prefix, state.removeprefix("RUN_STATE_").lower()).inc()
        log.info("ended", subject=assignment.subject.id, state=state, message=event.message)

    async def _carry_out(
        self, assignment: Assignment, workload: Workload, keeping: asyncio.Task[None]
    ) -> pb.RunEvent | None:
        """Work until the work ends or another state is requested.

        Returns:
            The event to write, or None if the requests must be read again.
        """
        assignment.stopping, assignment.message = self._draining, ""
        work = assignment.work = asyncio.create_task(workload.work(assignment))
        watching = asyncio.create_task(self._watch_requests(assignment, work))
        try:
            await asyncio.wait([work, keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            assignment.work = None
            for task in (work, watching):
                task.cancel()
            await asyncio.wait([work, watching])
        if work.cancelled():
            if keeping.done():
                keeping.result()  # raises LeaseLost
            return None
        error = work.exception()
        if error is None:
            outcome = work.result()
            return pb.RunEvent(state=pb.RUN_STATE_SUCCEEDED, message=outcome.message, version=outcome.version)
        return await self._after(assignment, list(_leaves(error)))

    async def _after(self, assignment: Assignment, errors: Sequence[BaseException]) -> pb.RunEvent | None:
        """Map errors of the work to an event. Errors that ended the work take precedence over consequences."""
        failed = pb.RUN_STATE_FAILED
        for error in errors:
            if isinstance(error, LeaseLost):
                raise error
        for error in errors:
            if isinstance(error, RunFailed):
                return pb.RunEvent(state=failed, message=str(error))
        for error in errors:
            if isinstance(error, PauseWanted):
                await self._pause(assignment, str(error))
                return None
        for error in errors:
            if isinstance(error, TRANSIENT):
                log.warning("work_interrupted", subject=assignment.subject.id, message=error.message)
                assignment.say(f"waiting for a service: {error.message}")
                await asyncio.sleep(RETRY_SECONDS)
                return None
            if isinstance(error, CodeAlignError):
                return pb.RunEvent(state=failed, message=error.message)
            if not isinstance(error, RunStopped):
                log.error("work_failed", subject=assignment.subject.id, exc_info=error)
                said = encodable(str(error))[:MESSAGE_CHARS]
                return pb.RunEvent(state=failed, message=f"unexpected {type(error).__name__}: {said}; see the log")
        if not assignment.stopping:  # nobody requested the stop
            await asyncio.sleep(RETRY_SECONDS)
        return None

    async def _pause(self, assignment: Assignment, reason: str) -> None:
        """Request a pause on behalf of the work. A request that a user made in the meantime takes precedence."""
        number = assignment.standing.number + 1
        paused = pb.RunRequest(wanted=pb.RUN_STATE_PAUSED, reason=reason)
        await patiently(
            lambda: requests.append(self._dataset, assignment.subject.id, paused, number), assignment.waiting
        )

    async def _watch_requests(self, assignment: Assignment, work: asyncio.Task[Outcome]) -> None:
        """Stop the work when another state is requested."""
        subject = assignment.subject.id
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_AGAIN_SECONDS):
                    await assignment.changed.wait()
            assignment.changed.clear()
            try:
                standing = await patiently(lambda: requests.standing(self._dataset, subject), assignment.waiting)
            except CodeAlignError as error:
                log.warning("requests_not_read", subject=subject, message=error.message)
                continue
            assignment.standing = replace(assignment.standing, request=standing.request)
            if standing.wanted == pb.RUN_STATE_CANCELLED:
                work.cancel()
            elif standing.wanted == pb.RUN_STATE_PAUSED:
                assignment.stopping = True


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
