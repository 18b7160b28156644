"""Prometheus metrics of the gateway. The client library adds `_total` to the names of counters."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RESULTS = Counter("codealign_sandbox_results", "Results, by verdict", ["verdict"])
FAULTS = Counter(
    "codealign_sandbox_faults", "Attempts that failed because of a runner; retried, never attributed to the program"
)
RERUNS = Counter(
    "codealign_sandbox_reruns", "Time-outs caused by a lack of processor time, repeated once with nothing else running"
)
UNSTARTED = Counter(
    "codealign_sandbox_unstarted",
    "Programs refused or dropped before they ran: queue_full, deadline_too_near, deadline",
    ["reason"],
)
RUNNER_STARTS = Counter("codealign_sandbox_runner_starts", "Runners started, by outcome", ["outcome"])
QUEUED = Gauge("codealign_sandbox_queued", "Programs waiting for a slot")
BUSY = Gauge("codealign_sandbox_busy", "Programs running")
SLOTS = Gauge("codealign_sandbox_slots", "Programs that can run concurrently")
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
WALL_SECONDS = Histogram("codealign_sandbox_wall_seconds", "Wall-clock time of a program", buckets=_SECONDS)
QUEUE_SECONDS = Histogram("codealign_sandbox_queue_seconds", "Time that a program waited for a slot", buckets=_SECONDS)
