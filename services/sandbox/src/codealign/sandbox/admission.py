"""Who may wait: the bound of the queue, its fair use, and deadlines that cannot be met."""

from __future__ import annotations

from codealign.common.errors import ResourceExhausted
from codealign.sandbox import metrics
from codealign.sandbox.estimates import ServiceTimes, retry_delay
from codealign.sandbox.fairness import FairQueue
from codealign.sandbox.stations import Job


class Admission:
    """The door of the queue.

    Attributes:
        limit: How many jobs may wait.
    """

    def __init__(self, limit: int, waiting: FairQueue[Job], times: ServiceTimes) -> None:
        """Guards a queue.

        Args:
            limit: How many jobs may wait.
            waiting: The queue.
            times: How long executions took of late.
        """
        self.limit = limit
        self._waiting = waiting
        self._times = times

    def admit(self, job: Job, seconds: float, slots: int) -> None:
        """Puts a job into the queue.

        One caller's thousands cannot keep the others out: where the queue is full, the newest job of whoever has the
        most makes room for one of a caller with fewer.

        Args:
            job: It.
            seconds: Until its deadline.
            slots: Executions at once, now.

        Raises:
            ResourceExhausted: The queue is full and its caller has the most in it; or it will wait beyond its
                deadline even if all goes well. Where that is not certain it is queued, and dropped when it is late.
        """
        least = self._times.least_wait(self._waiting.ahead_of(job.caller), slots)
        if least > seconds:
            metrics.UNSTARTED.labels(reason="deadline_too_near").inc()
            raise ResourceExhausted(
                f"its turn comes in {least:.1f} s at the earliest, and its deadline is in {seconds:.1f} s: send fewer "
                "at once, or wait longer",
                retry_after=retry_delay(self._times.wait(len(self._waiting), slots) - seconds),
            )
        if len(self._waiting) >= self.limit:
            metrics.UNSTARTED.labels(reason="queue_full").inc()
            newest = self._waiting.push_out(job.caller)
            if newest is None:
                raise self._full(slots)
            if not newest.outcome.done():
                newest.outcome.set_exception(self._full(slots))
        self._waiting.put(job.caller, job)

    def _full(self, slots: int) -> ResourceExhausted:
        return ResourceExhausted(
            f"{self.limit} programs already wait: send fewer at once, or raise CODEALIGN_SANDBOX_QUEUE_LIMIT",
            retry_after=retry_delay(self._times.wait(len(self._waiting), slots)),
        )
