"""Metrics of the gateway, besides those of every server."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

RESULTS = Counter("codealign_sandbox_results_total", "Results", ["verdict", "profile"])
FAULTS = Counter(
    "codealign_sandbox_faults_total", "Attempts that a runner failed; repeated, never attributed to the program"
)
RERUNS = Counter(
    "codealign_sandbox_reruns_total", "Time-outs for lack of a processor, repeated once with nothing else running"
)
UNSTARTED = Counter(
    "codealign_sandbox_unstarted_total",
    "Programs refused or dropped before they ran: queue_full, deadline_too_near, deadline",
    ["reason"],
)
RUNNER_STARTS = Counter(
    "codealign_sandbox_runner_starts_total",
    "Starts of runners: ready, failed, or refused because isolation was not proved",
    ["outcome"],
)
RUNNERS = Gauge(
    "codealign_sandbox_runners", "Runners that are ready, and those refused for lack of isolation", ["state"]
)
SLOTS = Gauge("codealign_sandbox_slots", "Programs that can run at once")
BUSY = Gauge("codealign_sandbox_busy", "Programs running")
QUEUED = Gauge("codealign_sandbox_queued", "Programs waiting for a slot")
OLDEST_QUEUED = Gauge(
    "codealign_sandbox_oldest_queued_timestamp_seconds",
    "When the program that waits longest was queued, in seconds since 1970; 0 if none waits",
)
QUEUE_LIMIT = Gauge("codealign_sandbox_queue_limit", "Programs that may wait; more are refused")
WALL_SECONDS = Histogram("codealign_sandbox_wall_seconds", "Wall-clock time of a program", buckets=_SECONDS)
QUEUE_SECONDS = Histogram("codealign_sandbox_queue_seconds", "Time that a program waited for a slot", buckets=_SECONDS)

for _reason in ("queue_full", "deadline_too_near", "deadline"):
    UNSTARTED.labels(_reason)
for _outcome in ("ready", "failed", "refused"):
    RUNNER_STARTS.labels(_outcome)
for _state in ("ready", "refused"):
    RUNNERS.labels(_state)
