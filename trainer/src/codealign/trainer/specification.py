"""A training's specification: validated, completed with the paper's values, and hashed. Pure functions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator

from codealign.api.dataset.v1 import records_pb2 as records
from codealign.api.training.v1 import training_pb2 as api
from codealign.common.errors import InvalidArgument
from codealign.common.records import complete
from codealign.trainer.sft.job import LoraSettings
from codealign.trainer.sft.template import chat_template

SCHEDULES = ("linear", "cosine", "constant")
OPTIMIZERS = ("adafactor", "adamw")
DTYPES = ("float32", "bfloat16")
SHARDINGS = ("fsdp", "ddp")
MAX_WORKERS = 64
MAX_BATCH = 65_536
MAX_LENGTH = 1_048_576
MAX_EPOCHS = 1000.0
MAX_RANK = 4096
MAX_NAME = 200

Violation = tuple[str, str]


def completed(given: api.TrainingSpec, device: str) -> api.TrainingSpec:
    """Return the specification with all defaults filled in.

    Args:
        given: The specification as submitted.
        device: "cpu" or "cuda"; determines the default dtype.

    Raises:
        InvalidArgument: Names every invalid field.
    """
    if violations := list(_violations(given)):
        raise InvalidArgument(violations=violations)
    spec = api.TrainingSpec()
    spec.CopyFrom(given)
    spec.learning_rate = given.learning_rate or 1e-5
    spec.warmup_ratio = given.warmup_ratio if given.HasField("warmup_ratio") else 0.05
    spec.schedule = given.schedule or "linear"
    spec.optimizer = given.optimizer or "adafactor"
    spec.batch_size = given.batch_size or 64
    spec.epochs = given.epochs or 4.0
    spec.max_length = given.max_length or 1280
    spec.dtype = given.dtype or ("bfloat16" if device == "cuda" else "float32")
    spec.workers = given.workers or 1
    spec.checkpoint_steps = given.checkpoint_steps or 100
    spec.sharding = given.sharding or "fsdp"
    if given.HasField("lora"):
        spec.lora.rank = given.lora.rank or 16
        spec.lora.alpha = given.lora.alpha or 2.0 * spec.lora.rank
    if spec.batch_size % spec.workers:
        raise InvalidArgument(
            "spec.batch_size", f"is {spec.batch_size}; must be a multiple of spec.workers ({spec.workers})"
        )
    return spec


def _violations(spec: api.TrainingSpec) -> Iterator[Violation]:
    if len(spec.name) > MAX_NAME or not (spec.name.isprintable() or not spec.name):
        yield "spec.name", f"must be at most {MAX_NAME} printable characters"
    if not spec.model:
        yield "spec.model", "must be set: a folder, a hub id or an artifact URL of the base model"
    if not spec.dataset:
        yield "spec.dataset", "must be set: a published version's name, or a URL of Parquet files"
    yield from _number("spec.learning_rate", spec.learning_rate, 0.0, 1e6, "1e-5")
    if spec.HasField("warmup_ratio") and not 0.0 <= spec.warmup_ratio <= 1.0:
        yield "spec.warmup_ratio", f"is {spec.warmup_ratio:g}; must be 0 to 1"
    yield from _number("spec.epochs", spec.epochs, 0.0, MAX_EPOCHS, "4")
    yield from _count("spec.batch_size", spec.batch_size, MAX_BATCH, 64)
    yield from _count("spec.max_length", spec.max_length, MAX_LENGTH, 1280)
    yield from _count("spec.workers", spec.workers, MAX_WORKERS, 1)
    yield from _count("spec.checkpoint_steps", spec.checkpoint_steps, 2**31 - 1, 100)
    if spec.max_steps < 0:
        yield "spec.max_steps", f"is {spec.max_steps}; must be at least 0 (0: by epochs)"
    if spec.rows < 0:
        yield "spec.rows", f"is {spec.rows}; must be at least 0 (0: all rows)"
    yield from _choice("spec.schedule", spec.schedule, SCHEDULES)
    yield from _choice("spec.optimizer", spec.optimizer, OPTIMIZERS)
    yield from _choice("spec.dtype", spec.dtype, DTYPES)
    yield from _choice("spec.sharding", spec.sharding, SHARDINGS)
    if spec.HasField("lora"):
        yield from _count("spec.lora.rank", spec.lora.rank, MAX_RANK, 16)
        yield from _number("spec.lora.alpha", spec.lora.alpha, 0.0, 1e6, "2 * rank")
        if not 0.0 <= spec.lora.dropout < 1.0:
            yield "spec.lora.dropout", f"is {spec.lora.dropout:g}; must be at least 0 and below 1"
        for at, module in enumerate(spec.lora.target_modules):
            if not module:
                yield f"spec.lora.target_modules[{at}]", "is empty: name a linear layer such as q_proj"


def _number(path: str, value: float, above: float, most: float, default: str) -> Iterator[Violation]:
    if not math.isfinite(value) or value < above or value > most:
        yield path, f"is {value:g}; must be above {above:g}, at most {most:g} (0: {default})"


def _count(path: str, value: int, most: int, default: int) -> Iterator[Violation]:
    if not 0 <= value <= most:
        yield path, f"is {value}; must be 1 to {most} (0: {default})"


def _choice(path: str, value: str, choices: tuple[str, ...]) -> Iterator[Violation]:
    if value and value not in choices:
        yield path, f"is {value!r}; must be one of {', '.join(choices)}"


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
