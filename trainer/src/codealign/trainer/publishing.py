"""The dataset record of a trained model."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from pathlib import Path

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as records
from codealign.common.clients import Clients, RetryPolicy
from codealign.common.errors import Internal
from codealign.common.model_identity import revision
from codealign.common.records import complete
from codealign.trainer.library import Entry
from codealign.trainer.sft.progress import Outcome

_PATIENT = RetryPolicy(attempts=0)  # the training is done: wait until the store is available


async def publish(
    entry: Entry, outcome: Outcome, clients: Clients, cache: Path, *, url: str = "", retry: RetryPolicy = _PATIENT
) -> records.Record:
    """Append the Checkpoint record and its StageConfig.

    Args:
        entry: The training.
        outcome: Its outcome; includes the model's revision if `url` is set.
        clients: Clients of the dataset service.
        cache: Cache directory for digests of model files.
        url: URL of the trained model. Empty: the training's directory.
        retry: Retry policy while the store is unavailable.

    Returns:
        The record in the store; another result of the same training if that was stored first.

    Raises:
        grpc.aio.AioRpcError: The store rejects the records.
    """
    record = await checkpoint_record(entry, outcome, cache, url)
    request = dataset_pb2.AppendRequest(records=[entry.config, record])
    answer = await clients.call(clients.dataset.Append, request, timeout=60, retry=retry)
    result = answer.results[-1]
    if result.id != record.id:
        raise Internal(f"the dataset service returned record {result.id} for {record.id}")
    if result.outcome == dataset_pb2.APPEND_OUTCOME_CONFLICT:
        return result.kept
    return record


async def checkpoint_record(entry: Entry, outcome: Outcome, cache: Path, url: str = "") -> records.Record:
    """Return the Checkpoint record of a successful training."""
    training, job = entry.training, entry.job
    body = records.Checkpoint(
        artifact_url=url or job.result.as_uri(),
        revision=outcome.revision or await asyncio.to_thread(revision, job.result, cache),
        base_model=job.model_name,
        base_revision=job.model_revision,
        dataset_version=job.dataset_name,
        steps=outcome.steps,
        final_loss=outcome.final_loss,
        settings_json=json.dumps(job.settings(), sort_keys=True),
        rows=training.rows,
        truncated_rows=training.truncated_rows,
        trained_tokens=training.trained_tokens,
        losses=training.losses,
        setup=job.setup,
    )
    record = records.Record(kind=records.KIND_CHECKPOINT, stage_config_id=entry.config.id, checkpoint=body)
    record.provenance.model = job.model_name
    record.provenance.model_revision = job.model_revision
    record.provenance.producer = f"codealign-trainer {version('codealign-trainer')}"
    record.provenance.created_at.GetCurrentTime()
    return complete(record)
