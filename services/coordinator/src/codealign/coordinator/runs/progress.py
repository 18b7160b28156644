"""Progress of a run that no coordinator is working on."""

from __future__ import annotations

from collections.abc import Iterable

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.tally import Progress, from_counts
from codealign.coordinator.metrics import StageMeter
from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.pipelines.stage import Stage
from codealign.coordinator.runs.config import pipeline_of, stage_configs


def empty_progress(run: pb.Run) -> Progress:
    """Return the progress of a run that is about to start.

    Raises:
        FailedPrecondition: The run was created by another release; see `config.pipeline_of`.
    """
    return Progress(stage.name for stage in pipeline_of(run).stages)


def measured_progress(run: pb.Run) -> Progress:
    """Return the progress of a run that starts or resumes here, counted for Prometheus.

    Raises:
        FailedPrecondition: The run was created by another release; see `config.pipeline_of`.
    """
    stages = pipeline_of(run).stages
    return Progress((stage.name for stage in stages), {stage.name: _meter(stage) for stage in stages})


def _meter(stage: Stage) -> StageMeter:
    return StageMeter(stage.name, {*stage.reasons, INTERNAL_ERROR})


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
