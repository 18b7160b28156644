"""A training's specification: validated, completed with the paper's values, and hashed. Pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from codealign.api.dataset.v1 import records_pb2 as records
from codealign.api.training.v1 import training_pb2 as api
from codealign.common.errors import InvalidArgument
from codealign.common.records import complete
from codealign.common.training_settings import BATCH_SIZE, WORKERS, Violation, violations
from codealign.trainer.sft.job import LoraSettings
from codealign.trainer.sft.template import chat_template


def completed(given: api.TrainingSpec, device: str) -> api.TrainingSpec:
    """Return the specification with all defaults filled in.

    Args:
        given: The specification as submitted.
        device: "cpu" or "cuda"; determines the default dtype.

    Raises:
        InvalidArgument: Names every invalid field.
    """
    if wrong := [*_unnamed(given), *violations(given, "spec")]:
        raise InvalidArgument(violations=wrong)
    spec = api.TrainingSpec()
    spec.CopyFrom(given)
    spec.learning_rate = given.learning_rate or 1e-5
    spec.warmup_ratio = given.warmup_ratio if given.HasField("warmup_ratio") else 0.05
    spec.schedule = given.schedule or "linear"
    spec.optimizer = given.optimizer or "adafactor"
    spec.batch_size = given.batch_size or BATCH_SIZE
    spec.epochs = given.epochs or 4.0
    spec.max_length = given.max_length or 1280
    spec.dtype = given.dtype or ("bfloat16" if device == "cuda" else "float32")
    spec.workers = given.workers or WORKERS
    spec.checkpoint_steps = given.checkpoint_steps or 100
    spec.sharding = given.sharding or "fsdp"
    if given.HasField("lora"):
        spec.lora.rank = given.lora.rank or 16
        spec.lora.alpha = given.lora.alpha or 2.0 * spec.lora.rank
    return spec


def _unnamed(spec: api.TrainingSpec) -> Iterator[Violation]:
    if not spec.model:
        yield "spec.model", "must be set: a folder, a hub id or an artifact URL of the base model"
    if not spec.dataset:
        yield "spec.dataset", "must be set: a published version's name, or a URL of Parquet files"


def stage_config(spec: api.TrainingSpec, base_revision: str, dataset: str) -> records.Record:
    """Return the record of everything that determines the result; its id is the training's id.

    Args:
        spec: The specification with all defaults filled in.
        base_revision: The base model's revision.
        dataset: The published version's name, or the content's hash.
    """
    settings = {
        "base_revision": base_revision,
        "dataset": dataset,
        "template_sha256": hashlib.sha256(chat_template(begins_with_bos=False).encode()).hexdigest(),
        **job_settings(spec),
    }
    body = records.StageConfig(
        kind=records.KIND_CHECKPOINT, name="training", settings_json=json.dumps(settings, sort_keys=True)
    )
    return complete(records.Record(kind=records.KIND_STAGE_CONFIG, stage_config=body))


def job_settings(spec: api.TrainingSpec) -> dict[str, object]:
    """Return the settings that determine the result, under the program's field names."""
    lora = None
    if spec.HasField("lora"):
        lora = LoraSettings(
            rank=spec.lora.rank,
            alpha=spec.lora.alpha,
            target_modules=tuple(spec.lora.target_modules),
            dropout=spec.lora.dropout,
        ).model_dump(mode="json")
    # Added only if set, so that trainings on all rows keep their ids.
    rows = {"rows": spec.rows} if spec.rows else {}
    return {
        **rows,
        "learning_rate": spec.learning_rate,
        "warmup_ratio": spec.warmup_ratio,
        "schedule": spec.schedule,
        "optimizer": spec.optimizer,
        "batch_size": spec.batch_size,
        "epochs": spec.epochs,
        "max_steps": spec.max_steps,
        "max_length": spec.max_length,
        "dtype": spec.dtype,
        "lora": lora,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "workers": spec.workers,
        "sharding": spec.sharding,
        "seed": spec.seed,
    }


def micro_batch(spec: api.TrainingSpec, wanted: int) -> int:
    """Return the largest number of rows at once, up to `wanted`, that divides a worker's share of the batch."""
    share = spec.batch_size // spec.workers
    return max(size for size in range(1, min(wanted, share) + 1) if share % size == 0)
