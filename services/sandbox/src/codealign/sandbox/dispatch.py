"""Dispatches requests: they wait for their turn, run on a runner with a free slot, and are retried if it is lost.

State changes only between two awaits of one event loop. Every change (a new request, a finished job, a runner added or
removed) calls `_pump`, which starts everything that can be started.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import math
import time
from collections.abc import Hashable

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common import traces
from codealign.common.errors import CodeAlignError, DeadlineExceeded
from codealign.common.estimates import ServiceTimes
from codealign.common.logs import get_logger
from codealign.common.scaling.demand import Demand
from codealign.sandbox import metrics, rerun
from codealign.sandbox.admission import Admission
from codealign.sandbox.fairness import FairQueue
from codealign.sandbox.runners.attached import RunnerDrained, RunnerLost
from codealign.sandbox.stations import Job, Runner, Station, Stations

_USEFUL_SECONDS = 0.05
"""With less time than this before the deadline a program is not started, as its verdict would come too late."""
_FAULT_LIMIT = 300
RUNNER = "runner"
"""Part for which the gateway exports spans."""
_VERDICTS = frozenset(pb.Verdict.values()) - {pb.VERDICT_UNSPECIFIED, pb.VERDICT_INFRASTRUCTURE}
"""Verdicts that a runner may return for a program."""

log = get_logger(__name__)


class Dispatcher:
    """Queues jobs and keeps the slots of all runners busy.

    Args:
        queue_limit: Maximum number of waiting jobs.
        attempts: Maximum number of runners that may fail a job before it gets a verdict.
        demand: Receives the number of waiting and running jobs.
    """

    def __init__(self, queue_limit: int, attempts: int, demand: Demand | None = None) -> None:
        self.verdicts: collections.Counter[str] = collections.Counter()
        self._attempts = attempts
        self._demand = demand or Demand()
        self._stations = Stations()
        self._times = ServiceTimes()
        self._waiting: FairQueue[Job] = FairQueue()
        self._admission = Admission(queue_limit, self._waiting, self._times)
        metrics.QUEUE_LIMIT.set(queue_limit)
        # Jobs whose runner failed come before all others and run one at a time, so that a faulty job cannot repeatedly
        # take the same innocent neighbour down with it.
        self._failed: collections.deque[Job] = collections.deque()
        self._suspect: Job | None = None
        # Jobs that must run alone. Their machines take no other jobs until they have finished.
        self._exclusive: list[Job] = []

    @property
    def queue_limit(self) -> int:
        """Maximum number of waiting jobs."""
        return self._admission.limit

    @property
    def queued(self) -> int:
        """Number of jobs that wait for a slot."""
        return len(self._waiting) + len(self._failed) + len(self._exclusive)

    @property
    def busy(self) -> int:
        """Number of running jobs."""
        return self._stations.busy

    async def execute(self, request: pb.ExecuteRequest, caller: str = "", seconds: float = math.inf) -> pb.Result:
        """Wait for a slot and for the result. Cancelling the call stops the job in any state.

        Args:
            request: A validated request with every limit filled in.
            caller: Identity of the caller; callers take turns.
            seconds: How long the caller waits for the result.

        Raises:
            ResourceExhausted: The queue is full, or the job would certainly miss its deadline.
            DeadlineExceeded: The job could not start in time.
            CodeAlignError: The error passed to `refuse` in the meantime.
        """
        now = time.monotonic()
        outcome: asyncio.Future[pb.Result] = asyncio.get_running_loop().create_future()
        job = Job(request, caller, now + seconds, outcome, now)
        self._admission.admit(job, seconds, self._stations.slots)
        if seconds < math.inf:
            job.alarm = asyncio.get_running_loop().call_later(seconds - _USEFUL_SECONDS, self._expire, job)
        self._pump()
        try:
            result = await outcome
        finally:
            self._withdraw(job)
        result.queue_seconds = job.queue_seconds
        self._count(request.profile, result)
        return result

    async def refuse(self, error: CodeAlignError) -> None:
        """Fail every waiting job with an error, because no runner will become available."""
        for job in [*self._exclusive, *self._failed, *self._waiting.drain()]:
            if not job.outcome.done():
                job.outcome.set_exception(error)
        self._exclusive.clear()
        self._failed.clear()
        self._pump()

    async def serve(self, runner: Runner, place: Hashable | None = None) -> None:
        """Give jobs to a runner, as many at once as it has slots, until it is gone or the call is cancelled.

        Args:
            runner: A ready runner with verified isolation.
            place: Identity of its location, which stays the same when the runner is restarted. None: unique.
        """
        station = Station(runner, runner.description.name if place is None else place)
        self._stations.add(station)
        for profile in runner.description.profiles:
            # From 0 on: an alert compares increases, and would miss the first result of a series that begins with it.
            metrics.RESULTS.labels(_verdict_name(pb.VERDICT_INFRASTRUCTURE), profile)
        try:
            self._pump()
            await runner.wait_ended()
            # Its jobs end with it, and each reports so.
            await _until_empty(station)
        finally:
            station.is_stopping = True
            for job in station.jobs:
                if job.task is not None:
                    job.task.cancel()
            try:
                await _until_empty(station)
            finally:
                self._stations.remove(station)
                self._pump()

    def _count(self, profile: str, result: pb.Result) -> None:
        name = _verdict_name(result.verdict)
        self.verdicts[name] += 1
        metrics.RESULTS.labels(name, profile).inc()
        metrics.WALL_SECONDS.observe(result.wall_seconds)
        metrics.QUEUE_SECONDS.observe(result.queue_seconds)

    def _expire(self, job: Job) -> None:
        """Drop a job that can no longer start before its deadline."""
        if job.task is not None or job.outcome.done():
            return
        metrics.UNSTARTED.labels(reason="deadline").inc()
        waited = job.queue_seconds + time.monotonic() - job.waiting_since
        job.outcome.set_exception(
            DeadlineExceeded(
                f"waited {waited:.1f} s for a free slot and could not start before the deadline: send fewer at "
                "once, or use a longer deadline"
            )
        )

    def _withdraw(self, job: Job) -> None:
        """Stop a job in any state. Does nothing if it has finished."""
        if job.alarm is not None:
            job.alarm.cancel()
        if job.task is not None:
            job.task.cancel()
            return
        if not self._waiting.remove(job.caller, job):
            for others in (self._failed, self._exclusive):
                if job in others:
                    others.remove(job)
        self._pump()

    def _pump(self) -> None:
        """Start every job that can be started."""
        while (chosen := self._next()) is not None:
            self._start(*chosen)
        queued, busy = self.queued, self.busy
        metrics.QUEUED.set(queued)
        metrics.OLDEST_QUEUED.set(self._oldest())
        metrics.BUSY.set(busy)
        self._demand.set(queued + busy)

    def _oldest(self) -> float:
        """Return when the job that waits longest was queued, in seconds since 1970, or 0 if none waits."""
        first = [*self._waiting.heads(), *self._failed, *self._exclusive]
        since = min((job.waiting_since for job in first), default=None)
        return 0.0 if since is None else time.time() - (time.monotonic() - since)

    def _next(self) -> tuple[Job, Station] | None:
        """Return the next job and its runner: first jobs that must run alone, then failed ones, then by turns."""
        exclusive = self._next_exclusive()
        if exclusive is not None:
            return exclusive
        held = {job.machine for job in self._exclusive} | self._stations.exclusive()
        if self._failed and self._suspect is None:
            station = self._stations.choose(held, avoid=self._failed[0].failed_places)
            if station is not None:
                self._suspect = self._failed.popleft()
                return self._suspect, station
        station = self._stations.choose(held)
        while station is not None and self._waiting:
            job = self._waiting.pop()
            if time.monotonic() < job.deadline - _USEFUL_SECONDS and not job.outcome.done():
                return job, station
            self._expire(job)
        return None

    def _next_exclusive(self) -> tuple[Job, Station] | None:
        machines = self._stations.machines()
        for job in self._exclusive:
            if machines and job.machine not in machines:
                job.machine = min(machines)  # Its machine has no runner any more.
            if self._stations.at_work(job.machine):
                continue
            station = self._stations.choose((), job.failed_places, job.machine)
            if station is not None:
                self._exclusive.remove(job)
                return job, station
        return None

    def _start(self, job: Job, station: Station) -> None:
        started = time.monotonic()
        waited = started - job.waiting_since
        job.queue_seconds += waited
        now = time.time()
        traces.record("queue", now - waited, now, {}, job.context)
        job.task = asyncio.create_task(_execute(station.runner, job.request), context=job.call)
        station.jobs.add(job)
        job.task.add_done_callback(functools.partial(self._ended, job, station, started), context=job.call)

    def _ended(self, job: Job, station: Station, started: float, task: asyncio.Task[pb.Result]) -> None:
        station.jobs.remove(job)
        job.task = None
        job.waiting_since = time.monotonic()
        if self._suspect is job:
            self._suspect = None
        error = None if task.cancelled() else task.exception()
        _trace(job, station, job.waiting_since - started, None if task.cancelled() or error else task.result())
        if job.outcome.done():
            pass  # Nobody waits for it any more.
        elif task.cancelled() or isinstance(error, RunnerDrained):
            self._give_back(job)  # The runner is shutting down, which is no fault.
        elif error is not None:
            if not isinstance(error, RunnerLost):
                log.error("runner_failed", runner=station.runner.description.name, exc_info=error)
            self._try_again(job, station, str(error) or type(error).__name__)
        elif task.result().verdict in _VERDICTS:
            self._times.add(job.waiting_since - started)
            self._settle(job, station, task.result())
        else:
            result = task.result()
            self._try_again(job, station, result.detail or f"it returned the invalid verdict {result.verdict}")
        self._pump()

    def _settle(self, job: Job, station: Station, result: pb.Result) -> None:
        """Accept a runner's result, unless it reflects the machine rather than the program."""
        if not job.machine and rerun.is_starved(job.request, result):
            metrics.RERUNS.inc()
            job.machine, job.reason = station.machine, rerun.why(result)
            job.request = rerun.request_alone(job.request)
            log.info("run_again_alone", request=job.request.request_id, why=job.reason)
            self._exclusive.append(job)
            return
        if job.machine:
            rerun.settle(result, job.reason)
        job.outcome.set_result(result)

    def _give_back(self, job: Job) -> None:
        if job.machine:
            self._exclusive.append(job)
        elif job.faults:
            self._failed.appendleft(job)
        else:
            self._waiting.put_back(job.caller, job)

    def _try_again(self, job: Job, station: Station, fault: str) -> None:
        name = station.runner.description.name
        job.faults.append(f"{name}: {fault[:_FAULT_LIMIT]}")
        job.failed_places.add(station.place)
        metrics.FAULTS.inc()
        log.warning("attempt_failed", request=job.request.request_id, attempts=len(job.faults), fault=job.faults[-1])
        if len(job.faults) < self._attempts:
            (self._exclusive if job.machine else self._failed).append(job)
            return
        evidence = "; ".join(f"{number}. {each}" for number, each in enumerate(job.faults, 1))
        detail = f"no runner could run it in {len(job.faults)} attempts: {evidence}"
        job.outcome.set_result(
            pb.Result(request_id=job.request.request_id, verdict=pb.VERDICT_INFRASTRUCTURE, detail=detail, runner=name)
        )


async def _execute(runner: Runner, request: pb.ExecuteRequest) -> pb.Result:
    return await runner.execute(request)


def _verdict_name(verdict: pb.Verdict.ValueType) -> str:
    return pb.Verdict.Name(verdict).removeprefix("VERDICT_")


def _trace(job: Job, station: Station, seconds: float, result: pb.Result | None) -> None:
    """Record a runner's attempt at a job as a span of the runner, which has no network to export it itself."""
    now = time.time()
    attributes: dict[str, str | int | float] = {
        "runner": station.runner.description.name,
        "attempt": len(job.faults) + 1,
    }
    if result is not None:
        attributes["verdict"] = _verdict_name(result.verdict) if result.verdict in _VERDICTS else "invalid"
        attributes |= {"cpu_seconds": result.cpu_seconds, "stalled_seconds": result.stalled_seconds}
    traces.record("execute", now - seconds, now, attributes, job.context, RUNNER)


async def _until_empty(station: Station) -> None:
    """Wait until a runner has no job any more."""
    while tasks := [job.task for job in station.jobs if job.task is not None]:
        await asyncio.wait(tasks)
