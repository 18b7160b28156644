"""Admission to the queue: its size limit, fair use among callers, and deadlines that cannot be met."""

from __future__ import annotations

from codealign.common.errors import ResourceExhausted
from codealign.common.estimates import ServiceTimes, retry_delay
from codealign.sandbox import metrics
from codealign.sandbox.fairness import FairQueue
from codealign.sandbox.stations import Job


class Admission:
    """Admits jobs to the queue.

    Args:
        limit: Maximum number of waiting jobs.
        waiting: The queue.
        times: Durations of recent executions.

    Attributes:
        limit: Maximum number of waiting jobs.
    """

    def __init__(self, limit: int, waiting: FairQueue[Job], times: ServiceTimes) -> None:
        self.limit = limit
        self._waiting = waiting
        self._times = times

    def admit(self, job: Job, seconds: float, slots: int) -> None:
        """Put a job into the queue.

        One caller with thousands of jobs cannot keep the others out: if the queue is full, the newest job of the caller
        with the most jobs makes room for a job of a caller with fewer.

        Args:
            job: The job.
            seconds: Seconds until its deadline.
            slots: Current number of concurrent executions.

        Raises:
            ResourceExhausted: The queue is full and the caller already has the most jobs in it, or the job would
                certainly miss its deadline. If that is uncertain, the job is queued and dropped when it is late.
        """
        least = self._times.least_wait(self._waiting.ahead_of(job.caller), slots)
        if least > seconds:
            metrics.UNSTARTED.labels(reason="deadline_too_near").inc()
            raise ResourceExhausted(
                f"it would start in {least:.1f} s at the earliest, and its deadline is in {seconds:.1f} s: send fewer "
                "at once, or use a longer deadline",
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
            f"{self.limit} programs are already waiting: send fewer at once, or raise CODEALIGN_SANDBOX_QUEUE_LIMIT",
            retry_after=retry_delay(self._times.wait(len(self._waiting), slots)),
        )
