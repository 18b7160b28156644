"""Metrics of the operator, besides those of the trainings that it follows (`codealign.trainer.metrics`)."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from codealign.trainer.cluster.resource import CANCELLED, FAILED, PENDING, RUNNING, SUCCEEDED, SUSPENDED

STATES = (PENDING, RUNNING, SUSPENDED, SUCCEEDED, FAILED, CANCELLED)

RECONCILE_SECONDS = Histogram(
    "codealign_operator_reconcile_seconds",
    "Duration of one look at a FineTuneJob",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RECONCILE_ERRORS = Counter(
    "codealign_operator_reconcile_errors_total",
    "Looks that ended in an error and are repeated: api_server, storage, or unexpected",
    ["reason"],
)
JOBS = Gauge("codealign_operator_finetunejobs", "FineTuneJobs in the namespace", ["state"])
for _reason in ("api_server", "storage", "unexpected"):
    RECONCILE_ERRORS.labels(_reason)
for _state in STATES:
    JOBS.labels(_state.lower())


def show_jobs(states: Iterable[str]) -> None:
    """Set the number of FineTuneJobs by state."""
    found = Counts(states)
    for state in STATES:
        JOBS.labels(state.lower()).set(found[state])
