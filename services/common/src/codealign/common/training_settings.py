"""Valid values of a training's settings: for the training service, and for whoever asks it for trainings later."""

from __future__ import annotations

import math
from collections.abc import Iterator

from codealign.api.training.v1 import training_pb2 as api

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
BATCH_SIZE, WORKERS = 64, 1
"""Defaults of fields that depend on each other."""

Violation = tuple[str, str]


def violations(spec: api.TrainingSpec, path: str) -> Iterator[Violation]:
    """Yield the path of each invalid setting and what is wrong with it. Does not check what model and dataset name.

    Args:
        spec: The specification as given; unset fields have defaults.
        path: Path of the specification in the request.
    """
    if len(spec.name) > MAX_NAME or not (spec.name.isprintable() or not spec.name):
        yield f"{path}.name", f"must be at most {MAX_NAME} printable characters"
    yield from _number(f"{path}.learning_rate", spec.learning_rate, 0.0, 1e6, "1e-5")
    if spec.HasField("warmup_ratio") and not 0.0 <= spec.warmup_ratio <= 1.0:
        yield f"{path}.warmup_ratio", f"is {spec.warmup_ratio:g}; must be 0 to 1"
    yield from _number(f"{path}.epochs", spec.epochs, 0.0, MAX_EPOCHS, "4")
    yield from _batches(spec, path)
    yield from _count(f"{path}.max_length", spec.max_length, MAX_LENGTH, 1280)
    yield from _count(f"{path}.checkpoint_steps", spec.checkpoint_steps, 2**31 - 1, 100)
    if spec.max_steps < 0:
        yield f"{path}.max_steps", f"is {spec.max_steps}; must be at least 0 (0: by epochs)"
    if spec.rows < 0:
        yield f"{path}.rows", f"is {spec.rows}; must be at least 0 (0: all rows)"
    yield from _choice(f"{path}.schedule", spec.schedule, SCHEDULES)
    yield from _choice(f"{path}.optimizer", spec.optimizer, OPTIMIZERS)
    yield from _choice(f"{path}.dtype", spec.dtype, DTYPES)
    yield from _choice(f"{path}.sharding", spec.sharding, SHARDINGS)
    if spec.HasField("lora"):
        yield from _lora(spec.lora, f"{path}.lora")


def _batches(spec: api.TrainingSpec, path: str) -> Iterator[Violation]:
    wrong = [
        *_count(f"{path}.batch_size", spec.batch_size, MAX_BATCH, BATCH_SIZE),
        *_count(f"{path}.workers", spec.workers, MAX_WORKERS, WORKERS),
    ]
    yield from wrong
    batch_size, workers = spec.batch_size or BATCH_SIZE, spec.workers or WORKERS
    if not wrong and batch_size % workers:
        yield f"{path}.batch_size", f"is {batch_size}; must be a multiple of {path}.workers ({workers})"


def _lora(lora: api.Lora, path: str) -> Iterator[Violation]:
    yield from _count(f"{path}.rank", lora.rank, MAX_RANK, 16)
    yield from _number(f"{path}.alpha", lora.alpha, 0.0, 1e6, "2 * rank")
    if not 0.0 <= lora.dropout < 1.0:
        yield f"{path}.dropout", f"is {lora.dropout:g}; must be at least 0 and below 1"
    for at, module in enumerate(lora.target_modules):
        if not module:
            yield f"{path}.target_modules[{at}]", "is empty: name a linear layer such as q_proj"


def _number(path: str, value: float, above: float, most: float, default: str) -> Iterator[Violation]:
    if not math.isfinite(value) or value < above or value > most:
        yield path, f"is {value:g}; must be above {above:g}, at most {most:g} (0: {default})"


def _count(path: str, value: int, most: int, default: int) -> Iterator[Violation]:
    if not 0 <= value <= most:
        yield path, f"is {value}; must be 1 to {most} (0: {default})"


def _choice(path: str, value: str, choices: tuple[str, ...]) -> Iterator[Violation]:
    if value and value not in choices:
        yield path, f"is {value!r}; must be one of {', '.join(choices)}"
