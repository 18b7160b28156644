"""What Prometheus reads of the gateway. The client library adds `_total` to the names of counters."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RESULTS = Counter("codealign_sandbox_results", "Results, by verdict", ["verdict"])
FAULTS = Counter("codealign_sandbox_faults", "Attempts that a runner failed: retried, never the program's fault")
RERUNS = Counter(
    "codealign_sandbox_reruns", "Time-outs for want of a processor: run once more, with nothing beside them"
)
UNSTARTED = Counter(
    "codealign_sandbox_unstarted",
    "Programs refused or dropped before they ran: queue_full, deadline_too_near, deadline",
    ["reason"],
)
RUNNER_STARTS = Counter("codealign_sandbox_runner_starts", "Runners started, by what came of it", ["outcome"])
QUEUED = Gauge("codealign_sandbox_queued", "Programs that wait for a slot")
BUSY = Gauge("codealign_sandbox_busy", "Programs that run")
SLOTS = Gauge("codealign_sandbox_slots", "Programs that can run at once")
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
WALL_SECONDS = Histogram("codealign_sandbox_wall_seconds", "Wall-clock time of a program", buckets=_SECONDS)
QUEUE_SECONDS = Histogram("codealign_sandbox_queue_seconds", "Time that a program waited", buckets=_SECONDS)
