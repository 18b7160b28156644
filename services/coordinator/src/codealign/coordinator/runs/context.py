"""State shared by all parts of a run's work."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.logs import get_logger
from codealign.common.text import encodable
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Settings, Stage
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.runs.breaker import Breaker
from codealign.coordinator.runs.config import StageConfigs

log = get_logger(__name__)
_FRAMES = 8
DETAIL_CHARS = 2000
"""Maximum characters of an exception's or an endpoint's message that a record keeps."""


@dataclass(frozen=True)
class Context:
    """A run in progress."""

    record: pb.Record
    pipeline: Pipeline
    settings: Settings
    configs: StageConfigs
    store: RunStore
    benchmarks: BenchmarkTexts
    progress: Progress
    breaker: Breaker
    gate: Callable[[], None]
    """Raises RunStopped if no new work may start."""

    @property
    def run(self) -> pb.Run:
        """The run's settings."""
        return self.record.run

    async def reject(self, stage: Stage, parents: list[str], config_id: str, error: Exception) -> None:
        """Append a Rejection for an exception in place of the stage's output.

        Args:
            stage: The stage that raised.
            parents: Parent ids, the item's first.
            config_id: Configuration under which the item was processed.
            error: The exception.
        """
        rejection = internal_error(error, stage.makes)
        record = pb.Record(kind=pb.KIND_REJECTION, parents=parents, stage_config_id=config_id, rejection=rejection)
        log.warning("item_rejected", stage=stage.name, item=parents[0], detail=rejection.detail)
        if await self.store.append(record) is record:  # not left over from an earlier try
            self.breaker.saw(stage.name, INTERNAL_ERROR, rejection.detail)


def internal_error(error: Exception, rejected_kind: pb.Kind.ValueType) -> pb.Rejection:
    """Return a Rejection with an exception's message and its innermost stack frames as evidence."""
    frames = traceback.extract_tb(error.__traceback__, limit=-_FRAMES)
    lines = [f"{'/'.join(Path(f.filename).parts[-3:])}:{f.lineno} in {f.name}: {f.line or ''}" for f in frames]
    return pb.Rejection(
        rejected_kind=rejected_kind,
        reason=INTERNAL_ERROR,
        detail=encodable(f"{type(error).__name__}: {error}")[:DETAIL_CHARS],
        evidence=encodable("\n".join(lines)),
    )


def decision(parents: list[str], config_id: str, drop: Drop) -> pb.Record:
    """Return the record of a drop. A duplicate's original is a second parent because the drop depends on it."""
    return pb.Record(
        kind=pb.KIND_DECISION,
        parents=[*parents, *([drop.duplicate_of] if drop.duplicate_of else [])],
        stage_config_id=config_id,
        decision=pb.Decision(
            outcome=pb.Decision.OUTCOME_DROPPED,
            rule=drop.rule,
            detail=encodable(drop.detail),
            duplicate_of=drop.duplicate_of,
        ),
    )
