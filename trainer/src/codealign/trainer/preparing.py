"""From a specification to a training that can start: what it names is found, checked and hashed.

The service of one machine and the operator of a cluster do it alike, so that a specification is the same training for
both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import Clients
from codealign.trainer.estimate import Needs, estimate, rows_by_size
from codealign.trainer.library import Entry, Library
from codealign.trainer.sft.job import Job
from codealign.trainer.sources import find_data, find_model
from codealign.trainer.specification import completed, job_settings, micro_batch, stage_config


@dataclass(frozen=True)
class Place:
    """Where trainings run."""

    library: Library
    """Their folders."""
    cache_dir: Path
    """Digests of model files, and models that were fetched."""
    device: Literal["cpu", "cuda"]
    threads: Callable[[int], int]
    """CPU threads of each worker, for so many workers in all. 0: PyTorch's own choice."""
    micro_batch_size: int
    """Rows that a worker computes at once. 0: chosen by the model's size."""
    max_restarts: int
    """How often torchrun itself starts workers again."""


async def prepare(given: api.TrainingSpec, place: Place, clients: Clients) -> tuple[Entry, Needs]:
    """Find what a specification names.

    Returns:
        The training, which waits for its start and is not written yet, and what it needs.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition, Unavailable: As the contract says.
    """
    spec = completed(given, place.device)
    model = await find_model(spec, place.cache_dir)
    data = await find_data(spec.dataset, clients)
    config = stage_config(spec, model.revision, data.identity)
    rows_at_once = micro_batch(spec, place.micro_batch_size or rows_by_size(model.files, spec))
    job = Job.model_validate(
        {
            **job_settings(spec),
            "training_id": config.id,
            "model": model.folder,
            "model_source": model.source,
            "model_name": model.name,
            "model_revision": model.revision,
            "dataset": data.url,
            "dataset_name": data.name,
            "output": place.library.folder(config.id),
            "micro_batch_size": rows_at_once,
            "checkpoint_steps": spec.checkpoint_steps,
            "device": place.device,
            "threads": place.threads(spec.workers),
            "max_restarts": place.max_restarts,
        }
    )
    training = api.Training(
        id=config.id,
        spec=spec,
        state=api.TRAINING_STATE_PENDING,
        message="waiting for its turn",
        rows=data.rows,
    )
    training.created_at.GetCurrentTime()
    needs = estimate(model.files, spec, rows_at_once=rows_at_once, device=place.device)
    return Entry(training, job, config), needs
