"""How far a run is: counts for each stage, and a rate over the last minute."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox

STAGES = ("seeds", "concepts", "instructions", "responses", "execution", "selection")
RATE_WINDOW_SECONDS = 60.0
PASSED = "PASSED"


def verdict_name(value: sandbox.Verdict.ValueType) -> str:
    """`FAILED_ASSERTION` for VERDICT_FAILED_ASSERTION."""
    return sandbox.Verdict.Name(value).removeprefix("VERDICT_")


@dataclass
class StageTally:
    """One stage's counts."""

    expected: int = 0
    in_flight: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    _finished: deque[float] = field(default_factory=deque)

    @property
    def dropped(self) -> int:
        """Items that went no further."""
        return self.reasons.total()

    def finish(self, reason: str | None, *, fresh: bool = True) -> None:
        """Count an item as kept (no reason) or dropped.

        Args:
            reason: Why it was dropped, or None.
            fresh: It was done now, not found in the store: counts for the rate.
        """
        if reason is None:
            self.kept += 1
        else:
            self.reasons[reason] += 1
        if fresh:
            self._finished.append(time.monotonic())

    def rate(self) -> float:
        """Items per second over the last minute."""
        horizon = time.monotonic() - RATE_WINDOW_SECONDS
        while self._finished and self._finished[0] < horizon:
            self._finished.popleft()
        if len(self._finished) < 2:
            return 0.0
        span = time.monotonic() - self._finished[0]
        return len(self._finished) / span if span > 0 else 0.0


class Progress:
    """The tallies of all stages."""

    def __init__(self) -> None:
        self.stages = {name: StageTally() for name in STAGES}

    def __getitem__(self, stage: str) -> StageTally:
        return self.stages[stage]

    def to_wire(self) -> list[api.StageProgress]:
        """As RunStatus carries it."""
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


def from_counts(counts: Iterable[dataset.StageCount]) -> Progress:
    """The progress of a run that no coordinator works on, from its records alone."""
    progress = Progress()
    stage_of = {
        pb.KIND_CONCEPT_SET: "concepts",
        pb.KIND_INSTRUCTION: "instructions",
        pb.KIND_RESPONSE: "responses",
        pb.KIND_EXAMPLE: "selection",
    }
    for item in counts:
        if item.kind in stage_of:
            progress[stage_of[item.kind]].kept += item.count
        elif item.kind == pb.KIND_REJECTION:
            progress[stage_of[item.rejected_kind]].reasons[item.label] += item.count
        elif item.kind == pb.KIND_VERDICT:
            if item.label == PASSED:
                progress["execution"].kept += item.count
            else:
                progress["execution"].reasons[item.label] += item.count
        elif item.kind == pb.KIND_DECISION:
            _count_decision(progress, item)
    for tally in progress.stages.values():
        tally.expected = tally.kept + tally.dropped
    return progress


def _count_decision(progress: Progress, item: dataset.StageCount) -> None:
    kept = item.outcome == pb.Decision.OUTCOME_KEPT
    family = item.label.partition(".")[0]
    if family == "seed":
        if kept:
            progress["seeds"].kept += item.count
        else:
            progress["seeds"].reasons[item.label] += item.count
    elif family == "instruction" and not kept:
        progress["instructions"].kept -= item.count
        progress["instructions"].reasons[item.label] += item.count
    elif not kept:
        progress["selection"].reasons[item.label] += item.count
