"""Progress of a piece of work: counts per stage, a rate over the last minute, and busy time."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.coordinator.ground.windows import Window
from codealign.coordinator.metrics import StageMeter

RATE_WINDOW_SECONDS = 60.0
_RATE_ITEMS = 10_000
"""Maximum items for the rate, which bounds memory."""
PASSED = "PASSED"


def verdict_name(value: sandbox.Verdict.ValueType) -> str:
    """Return a verdict's name, such as `FAILED_ASSERTION` for VERDICT_FAILED_ASSERTION, or the number if unknown."""
    if value not in sandbox.Verdict.values():
        return str(value)
    return sandbox.Verdict.Name(value).removeprefix("VERDICT_")


@dataclass
class StageTally:
    """Counts of one stage."""

    expected: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    clock: Callable[[], float] = time.monotonic
    meter: StageMeter | None = None
    """Counts fresh items, retries and busy time for Prometheus."""
    in_flight: int = 0
    """Modified only by `begin` and `end`."""
    _busy: float = 0.0
    _since: float = 0.0
    _finished: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_ITEMS))

    @property
    def dropped(self) -> int:
        """Number of dropped items."""
        return self.reasons.total()

    @property
    def busy_seconds(self) -> float:
        """Seconds in which at least one item was in flight."""
        return self._busy + (self.clock() - self._since if self.in_flight else 0.0)

    def begin(self, count: int = 1) -> None:
        """Count items as in flight."""
        if not self.in_flight:
            self._since = self.clock()
        self.in_flight += count

    def end(self, count: int = 1) -> None:
        """Stop counting items as in flight."""
        if count:
            now = self.clock()
            self._busy += now - self._since
            if self.meter is not None:
                self.meter.busy(now - self._since)
            self._since = now
        self.in_flight -= count

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count one item as in flight inside this context."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def finish(self, reason: str | None, *, fresh: bool = True) -> None:
        """Count an item as kept (no reason) or dropped.

        Args:
            reason: Why the item was dropped, or None.
            fresh: Whether it was processed now rather than found in the store; only fresh items count for the rate.
        """
        if reason is None:
            self.kept += 1
        else:
            self.reasons[reason] += 1
        if fresh:
            self._finished.append(self.clock())
            if self.meter is not None:
                self.meter.finished(reason)

    def drop_kept(self, reason: str, *, fresh: bool = True) -> None:
        """Move an item from kept to dropped.

        Args:
            reason: Why it was dropped.
            fresh: Whether it was dropped now rather than found in the store.
        """
        self.kept -= 1
        self.reasons[reason] += 1
        if fresh and self.meter is not None:
            self.meter.dropped(reason)

    def retry(self) -> None:
        """Count a call that is repeated."""
        self.retries += 1
        if self.meter is not None:
            self.meter.retried()

    def rate(self) -> float:
        """Return the items per second over the last minute."""
        horizon = self.clock() - RATE_WINDOW_SECONDS
        while self._finished and self._finished[0] < horizon:
            self._finished.popleft()
        if len(self._finished) < 2:
            return 0.0
        span = self.clock() - self._finished[0]
        return len(self._finished) / span if span > 0 else 0.0


class Progress:
    """The tallies of a run's stages.

    Args:
        stages: Stage names, in the pipeline's order.
        meters: Prometheus counters by stage, for a run that a coordinator works on.

    Attributes:
        windows: Windows of the services that the run uses, by service; empty until the work begins.
        inference: Samples of all stages at inference.
        forecast: Returns what a run with a target is going to reach. None: it has no target, or is not drawing.
    """

    def __init__(self, stages: Iterable[str], meters: Mapping[str, StageMeter] | None = None) -> None:
        self.stages = {name: StageTally(meter=(meters or {}).get(name)) for name in stages}
        self.windows: Mapping[str, Window] = {}
        self.inference = StageTally()
        self.forecast: Callable[[], api.Forecast] | None = None

    def __getitem__(self, stage: str) -> StageTally:
        return self.stages[stage]

    def busy_seconds(self) -> dict[str, float]:
        """Return busy seconds by stage, without idle stages, as in a WorkLog."""
        return {name: tally.busy_seconds for name, tally in self.stages.items() if tally.busy_seconds > 0}

    def to_wire(self) -> list[api.StageProgress]:
        """Return the progress as in RunStatus."""
        messages = []
        for name, tally in self.stages.items():
            done = tally.kept + tally.dropped
            rate = tally.rate()
            message = api.StageProgress(
                stage=name,
                expected=max(tally.expected, done + tally.in_flight),
                in_flight=tally.in_flight,
                done=done,
                kept=tally.kept,
                dropped=tally.dropped,
                reasons=dict(tally.reasons),
                rate=rate,
                retries=tally.retries,
            )
            if rate > 0 and message.expected > done:
                message.seconds_left = (message.expected - done) / rate
            messages.append(message)
        return messages


def from_counts(counts: Iterable[dataset.RecordCount], configs: Mapping[str, pb.Record]) -> Progress:
    """Compute the progress of a run that no coordinator works on from its records alone.

    Args:
        counts: Counts of the run's collection.
        configs: The run's StageConfig records by stage, in the pipeline's order. Those of item rules (whose kind is
            Decision) are not stages: what they drop is a candidate for a row.
    """
    stages = {name: record for name, record in configs.items() if record.stage_config.kind != pb.KIND_DECISION}
    names = {record.id: name for name, record in stages.items()}
    progress = Progress(stages)
    for item in counts:
        own = names.get(item.stage_config_id, "")
        if item.kind == pb.KIND_DECISION:
            _count_decision(item, progress, stages, own)
        elif item.kind == pb.KIND_REJECTION:
            _count_rejection(item, progress, stages, own)
        elif not own:
            continue
        elif item.kind == pb.KIND_VERDICT and item.label != PASSED:
            progress[own].reasons[item.label] += item.count
        else:
            progress[own].kept += item.count
    for tally in progress.stages.values():
        tally.expected = tally.kept + tally.dropped
    return progress


def _count_rejection(item: dataset.RecordCount, progress: Progress, configs: Mapping[str, pb.Record], own: str) -> None:
    """Count a rejection. One under no stage's configuration is a rule's internal error on an item that was kept."""
    kinds = {record.stage_config.kind: name for name, record in configs.items()}
    stage = own or kinds.get(item.rejected_kind, "")
    if stage:
        progress[stage].reasons[item.label] += item.count
        if not own and item.rejected_kind != pb.KIND_EXAMPLE:
            progress[stage].kept -= item.count


def _count_decision(item: dataset.RecordCount, progress: Progress, configs: Mapping[str, pb.Record], own: str) -> None:
    kinds = {record.stage_config.kind: name for name, record in configs.items()}
    stage = own or kinds.get(pb.KIND_EXAMPLE, "")
    if not stage:
        return
    of_rows = configs[stage].stage_config.kind == pb.KIND_EXAMPLE
    of_seeds = stage == next(iter(configs))
    if item.outcome != pb.Decision.OUTCOME_KEPT:
        progress[stage].reasons[item.label] += item.count
        if not of_rows and not of_seeds:  # it was counted as kept when it was parsed
            progress[stage].kept -= item.count
    elif not of_rows:  # a kept row is counted by its own record
        progress[stage].kept += item.count
