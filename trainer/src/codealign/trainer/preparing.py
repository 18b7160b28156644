"""Prepare a training from its specification: find, check and hash what it names.

The local service and the cluster's operator share this code, so that a specification means the same training for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import Clients
from codealign.common.errors import InvalidArgument
from codealign.trainer.estimate import Needs, estimate, rows_by_size
from codealign.trainer.library import Entry, Library
from codealign.trainer.sft.job import Job
from codealign.trainer.sources import find_data, find_model
from codealign.trainer.specification import completed, job_settings, micro_batch, stage_config


@dataclass(frozen=True)
class Place:
    """Environment in which trainings run."""

    library: Library
    """Stores the trainings."""
    cache_dir: Path
    """Directory for digests of model files and downloaded models."""
    device: Literal["cpu", "cuda"]
    threads: Callable[[int], int]
    """Returns the CPU threads per worker for a number of workers. 0: PyTorch's default."""
    micro_batch_size: int
    """Rows that a worker processes at once. 0: chosen by model size."""
    max_restarts: int
    """How often torchrun itself restarts workers."""


async def prepare(given: api.TrainingSpec, place: Place, clients: Clients) -> tuple[Entry, Needs]:
    """Find what a specification names.

    Returns:
        The training, pending and not yet written, and its needs.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition, Unavailable: As documented in the contract.
    """
    spec = completed(given, place.device)
    model = await find_model(spec, place.cache_dir)
    data = await find_data(spec.dataset, clients)
    if spec.rows > data.rows:
        raise InvalidArgument("spec.rows", f"is {spec.rows:,}; the dataset has only {data.rows:,} rows")
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
        message="waiting for other trainings to finish",
        rows=spec.rows or data.rows,
    )
    training.created_at.GetCurrentTime()
    needs = estimate(model.files, spec, rows_at_once=rows_at_once, device=place.device)
    return Entry(training, job, config), needs
