"""Progress of a run that no coordinator is working on."""

from __future__ import annotations

from collections.abc import Iterable

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.tally import Progress, from_counts
from codealign.coordinator.runs.config import pipeline_of, stage_configs


def empty_progress(run: pb.Run) -> Progress:
    """Return the progress of a run that is about to start.

    Raises:
        FailedPrecondition: The run was created by another release; see `config.pipeline_of`.
    """
    return Progress(stage.name for stage in pipeline_of(run).stages)


def stored_progress(run: pb.Run, counts: Iterable[dataset.RecordCount]) -> Progress:
    """Compute the progress of a run from its records.

    Args:
        run: The run with every default filled in.
        counts: Counts of its collection.

    Raises:
        FailedPrecondition: The run was created by another release; see `config.pipeline_of`.
    """
    pipeline_of(run)
    return from_counts(counts, stage_configs(run))
