"""The queue between requests and runners: bounded, one job per free slot, a lost runner's jobs to another."""

import asyncio
import collections
import time

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.errors import CodeAlignError, ResourceExhausted
from codealign.common.logs import get_logger
from codealign.sandbox import metrics
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost

log = get_logger(__name__)


class _Job:
    def __init__(self, request: pb.ExecuteRequest) -> None:
        self.request = request
        self.outcome: asyncio.Future[pb.Result] = asyncio.get_running_loop().create_future()
        self.queued_at = time.monotonic()
        self.queue_seconds = 0.0
        self.attempts = 0
        self.last_fault = ""


class Dispatcher:
    """Holds what waits, and serves every slot that a runner has."""

    def __init__(self, queue_limit: int, attempts: int) -> None:
        """Makes an empty one.

        Args:
            queue_limit: How many jobs may wait.
            attempts: How often a job is given to a runner that then fails it.
        """
        self.queue_limit = queue_limit
        self.verdicts: collections.Counter[str] = collections.Counter()
        self._attempts = attempts
        self._waiting: collections.deque[_Job] = collections.deque()
        self._something = asyncio.Condition()
        self._busy = 0
        # Jobs whose runner was lost run one at a time: the one that is to blame cannot take the same innocent
        # neighbour down with it again and again.
        self._suspects = asyncio.Lock()

    @property
    def queued(self) -> int:
        """Jobs that wait for a slot."""
        return sum(1 for job in self._waiting if not job.outcome.done())

    @property
    def busy(self) -> int:
        """Jobs that a runner has."""
        return self._busy

    async def execute(self, request: pb.ExecuteRequest) -> pb.Result:
        """Waits for a slot and for the result. Cancelling the call stops the job wherever it is.

        Args:
            request: Checked, every limit filled in.

        Raises:
            ResourceExhausted: The queue is full.
            CodeAlignError: What `refuse` was called with meanwhile.
        """
        if self.queued >= self.queue_limit:
            raise ResourceExhausted(
                f"{self.queue_limit} programs already wait: send fewer at once, or raise CODEALIGN_SANDBOX_QUEUE_LIMIT",
                retry_after=1.0,
            )
        job = _Job(request)
        await self._put(job)
        try:
            result = await job.outcome
        finally:
            # A cancelled future is what the worker that has the job waits for too.
            job.outcome.cancel()
        result.queue_seconds = job.queue_seconds
        name = pb.Verdict.Name(result.verdict).removeprefix("VERDICT_")
        self.verdicts[name] += 1
        metrics.RESULTS.labels(verdict=name).inc()
        metrics.WALL_SECONDS.observe(result.wall_seconds)
        metrics.QUEUE_SECONDS.observe(result.queue_seconds)
        return result

    async def refuse(self, error: CodeAlignError) -> None:
        """Answers everything that waits with an error: no runner will come."""
        while self._waiting:
            job = self._waiting.popleft()
            if not job.outcome.done():
                job.outcome.set_exception(error)

    async def serve(self, runner: AttachedRunner) -> None:
        """Gives jobs to a runner, as many at once as it has slots, until it is gone or the call is cancelled."""
        workers = [asyncio.create_task(self._work(runner)) for _ in range(runner.description.slots)]
        try:
            await runner.wait_ended()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _put(self, job: _Job, *, first: bool = False) -> None:
        async with self._something:
            if first:
                self._waiting.appendleft(job)
            else:
                self._waiting.append(job)
            self._something.notify()
        metrics.QUEUED.set(len(self._waiting))

    async def _take(self) -> _Job:
        async with self._something:
            while True:
                while self._waiting:
                    job = self._waiting.popleft()
                    if not job.outcome.done():
                        metrics.QUEUED.set(len(self._waiting))
                        return job
                await self._something.wait()

    async def _work(self, runner: AttachedRunner) -> None:
        while runner.is_alive:
            job = await self._take()
            self._busy += 1
            metrics.BUSY.set(self._busy)
            try:
                await self._attempt(job, runner)
            except asyncio.CancelledError:
                # This worker ends, with its runner; the job is another's if it is not done.
                await self._failed(job, f"runner {runner.description.name} ended")
                raise
            finally:
                self._busy -= 1
                metrics.BUSY.set(self._busy)

    async def _attempt(self, job: _Job, runner: AttachedRunner) -> None:
        if job.attempts:
            async with self._suspects:
                await self._execute(job, runner)
        else:
            await self._execute(job, runner)

    async def _execute(self, job: _Job, runner: AttachedRunner) -> None:
        job.queue_seconds = time.monotonic() - job.queued_at
        execution = asyncio.create_task(runner.execute(job.request))
        job.outcome.add_done_callback(lambda _: execution.cancel())
        try:
            await asyncio.wait((execution,))
        except asyncio.CancelledError:
            execution.cancel()
            raise
        if execution.cancelled():
            return
        error = execution.exception()
        if isinstance(error, RunnerLost):
            await self._failed(job, str(error))
        elif error is not None:
            raise error
        elif execution.result().verdict == pb.VERDICT_INFRASTRUCTURE:
            await self._failed(job, execution.result().detail)
        elif not job.outcome.done():
            job.outcome.set_result(execution.result())

    async def _failed(self, job: _Job, fault: str) -> None:
        if job.outcome.done():
            return
        job.attempts += 1
        metrics.FAULTS.inc()
        log.warning("attempt_failed", request=job.request.request_id, attempts=job.attempts, fault=fault)
        if job.attempts < self._attempts:
            await self._put(job, first=True)
            return
        detail = f"no runner could run it in {job.attempts} attempts; the last: {fault}"
        job.outcome.set_result(
            pb.Result(request_id=job.request.request_id, verdict=pb.VERDICT_INFRASTRUCTURE, detail=detail)
        )
