"""The progress of a run that no coordinator works on."""

from __future__ import annotations

from collections.abc import Iterable

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator import pipelines
from codealign.coordinator.ground.tally import Progress, from_counts
from codealign.coordinator.runs.config import stage_configs


def empty_progress(run: pb.Run) -> Progress:
    """The progress of a run that begins."""
    return Progress(stage.name for stage in pipelines.get(run.pipeline).stages)


def stored_progress(run: pb.Run, counts: Iterable[dataset.RecordCount]) -> Progress:
    """The progress of a run as its records say it.

    Args:
        run: With every default filled in.
        counts: Of its collection.
    """
    return from_counts(counts, stage_configs(run))
