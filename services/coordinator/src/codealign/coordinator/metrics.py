"""Prometheus metrics of the coordinator.

Counters count the work of this process. A resumed run finds finished items in the store, which are not counted again;
seeds and candidates for rows are, since a resumed run judges them again. Gauges are read from the controllers' state
at every scrape. Labels have a fixed set of values: stages of pipelines, reasons that the stages declare, names of
models. Ids of runs and records never become labels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

OTHER = "other"
"""Reason that stands for every undeclared one."""

WORKLOADS = Gauge(
    "codealign_coordinator_workloads",
    "Runs, evaluations, loops, series and experiments that this coordinator holds: working, waiting or stopping",
    ["workload", "state"],
)
WORKLOAD_ENDS = Counter(
    "codealign_coordinator_workload_ends_total",
    "Runs, evaluations, loops, series and experiments that ended: succeeded, failed, paused or cancelled",
    ["workload", "state"],
)
ITEMS = Counter("codealign_coordinator_items_total", "Items that a stage finished, kept or dropped", ["stage"])
DROPPED = Counter("codealign_coordinator_dropped_items_total", "Items dropped, by reason", ["stage", "reason"])
IN_FLIGHT = Gauge("codealign_coordinator_items_in_flight", "Items at inference, the sandbox or selection", ["stage"])
RETRIES = Counter("codealign_coordinator_retries_total", "Calls repeated after a fault of a service", ["stage"])
BUSY_SECONDS = Counter(
    "codealign_coordinator_busy_seconds_total", "Time in which a stage had at least one item in flight", ["stage"]
)
TOKENS = Counter(
    "codealign_coordinator_tokens_total",
    "Tokens of completions: computed_prompt, cached_prompt, prompt (unknown which of both) and generated",
    ["stage", "model", "kind"],
)
ROWS = Counter("codealign_coordinator_rows_total", "Rows that selection kept")
WINDOW_LIMIT = Gauge(
    "codealign_coordinator_window_limit", "Units (samples, programs) that may be in flight at a service", ["service"]
)
WINDOW_IN_USE = Gauge("codealign_coordinator_window_in_use", "Units in flight at a service", ["service"])
BREAKER_OPENINGS = Counter(
    "codealign_coordinator_breaker_openings_total", "Runs paused because most of a stage's items failed"
)
LEASE_EVENTS = Counter(
    "codealign_coordinator_lease_events_total",
    "Events of leases: acquired, renewed, failed (a renewal that is repeated), regained, lost",
    ["event"],
)
for _event in ("acquired", "renewed", "failed", "regained", "lost"):
    LEASE_EVENTS.labels(_event)

WORKLOAD_NAMES = ("run", "evaluation", "loop", "series", "experiment")
STATES = ("working", "waiting", "stopping")
ENDS = ("succeeded", "failed", "paused", "cancelled")
SERVICES = ("inference", "sandbox")
for _workload in WORKLOAD_NAMES:
    for _state in ENDS:
        WORKLOAD_ENDS.labels(_workload, _state)


class StageMeter:
    """The counters of one stage.

    Args:
        stage: The stage's name.
        reasons: The reasons that it declares; others are counted as OTHER.
    """

    def __init__(self, stage: str, reasons: Collection[str]) -> None:
        self._stage, self._reasons = stage, frozenset(reasons)
        self._items = ITEMS.labels(stage)
        self._retries = RETRIES.labels(stage)
        self._busy = BUSY_SECONDS.labels(stage)
        for reason in (*self._reasons, OTHER):
            DROPPED.labels(stage, reason)

    def finished(self, reason: str | None) -> None:
        """Count an item as kept (no reason) or dropped."""
        self._items.inc()
        if reason is not None:
            self.dropped(reason)

    def dropped(self, reason: str) -> None:
        """Count an item as dropped that was counted as finished before."""
        DROPPED.labels(self._stage, reason if reason in self._reasons else OTHER).inc()

    def retried(self) -> None:
        """Count a repeated call."""
        self._retries.inc()

    def busy(self, seconds: float) -> None:
        """Count time with items in flight."""
        self._busy.inc(max(0.0, seconds))

    def generated(self, model: str, prompt: int, cached: int | None, generated: int) -> None:
        """Count a completion's tokens.

        Args:
            model: Name of the model.
            prompt: Tokens of the prompt.
            cached: Tokens of the prompt that were not computed for this completion. None: unknown.
            generated: New tokens.
        """
        parts = {"prompt": prompt} if cached is None else {"computed_prompt": prompt - cached, "cached_prompt": cached}
        for kind, tokens in {**parts, "generated": generated}.items():
            TOKENS.labels(self._stage, model, kind).inc(max(0, tokens))


@dataclass(frozen=True)
class Now:
    """The state of the controllers at a scrape; missing keys count as 0."""

    workloads: Mapping[tuple[str, str], int]
    """Number of workloads by name and state."""
    in_flight: Mapping[str, int]
    """Items in flight by stage."""
    window_limits: Mapping[str, int]
    """Sum of the windows' limits by service."""
    windows_in_use: Mapping[str, int]
    """Units in flight by service."""


def watch(now: Callable[[], Now], stages: Collection[str]) -> None:
    """Read the gauges from `now` at every scrape.

    Args:
        now: Returns the current state; called from another thread.
        stages: Names of all stages.
    """
    for workload in WORKLOAD_NAMES:
        for state in STATES:
            key = workload, state
            WORKLOADS.labels(*key).set_function(lambda key=key: now().workloads.get(key, 0))  # type: ignore[misc]
    for stage in stages:
        IN_FLIGHT.labels(stage).set_function(lambda stage=stage: now().in_flight.get(stage, 0))  # type: ignore[misc]
    for service in SERVICES:
        WINDOW_LIMIT.labels(service).set_function(
            lambda service=service: now().window_limits.get(service, 0)  # type: ignore[misc]
        )
        WINDOW_IN_USE.labels(service).set_function(
            lambda service=service: now().windows_in_use.get(service, 0)  # type: ignore[misc]
        )
