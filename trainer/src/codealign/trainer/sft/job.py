"""The program's input: one training as a job file. This module does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingError(Exception):
    """The training failed for good, since a retry would fail the same way; the message says why and what to do."""


class LoraSettings(BaseModel):
    """Parameter-efficient tuning (arXiv 2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    target_modules: tuple[str, ...] = ()
    """Names of linear layers. Empty: all except the output layer."""
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Job(BaseModel):
    """One training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_id: str
    """Id of the training, which its checkpoints must match."""
    model: Path
    """Directory of the base model."""
    model_source: str = ""
    """Where a pod without that directory can download it: an fsspec URL, or hf://<hub id>@<commit>. Empty: nowhere."""
    model_name: str
    """Display name of the base model."""
    model_revision: str
    """Revision hash of the base model."""
    dataset: str
    """fsspec URL of a Parquet file or of a directory with Parquet files."""
    dataset_name: str
    """Display name of the dataset: the published version's name."""
    output: Path
    """Directory for all output of the training."""
    learning_rate: float = 1e-5
    warmup_ratio: float = 0.05
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    batch_size: int = Field(default=64, ge=1)
    """Rows per optimizer step, over all workers."""
    micro_batch_size: int = Field(default=1, ge=1)
    """Rows that a worker processes at once; `batch_size` is reached by accumulation."""
    epochs: float = Field(default=4.0, gt=0)
    max_steps: int = Field(default=0, ge=0)
    max_length: int = Field(default=1280, ge=2)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of weights, gradients and computation."""
    device: Literal["cpu", "cuda"] = "cpu"
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    workers: int = Field(default=1, ge=1)
    sharding: Literal["fsdp", "ddp"] = "fsdp"
    checkpoint_steps: int = Field(default=100, ge=1)
    seed: int = 0
    rows: int = Field(default=0, ge=0)
    """Rows to train on, drawn by the seed. 0: all."""
    threads: int = Field(default=0, ge=0)
    """CPU threads per worker. 0: PyTorch's default."""
    max_restarts: int = Field(default=3, ge=0)
    """How often torchrun restarts dead workers from the last checkpoint."""

    @property
    def library_seed(self) -> int:
        """The seed for numpy: 32 bits, unsigned."""
        return self.seed % 2**32

    @property
    def sharded(self) -> bool:
        """Whether parameters, gradients and optimizer state are sharded across workers."""
        return self.workers > 1 and self.sharding == "fsdp"

    @property
    def progress_file(self) -> Path:
        """File of progress events, as JSON lines."""
        return self.output / "progress.jsonl"

    @property
    def outcome_file(self) -> Path:
        """File of the outcome."""
        return self.output / "outcome.json"

    @property
    def checkpoints(self) -> Path:
        """Directory of checkpoints."""
        return self.output / "checkpoints"

    @property
    def result(self) -> Path:
        """Directory of the trained model."""
        return self.output / "model"

    @property
    def setup(self) -> str:
        """One-line description of the training setup."""
        parts = [f"{self.dtype} on {self.device}", f"{self.workers} worker{'s' if self.workers > 1 else ''}"]
        if self.workers > 1:
            parts.append(self.sharding)
        if self.lora:
            parts.append(f"LoRA rank {self.lora.rank}")
        return ", ".join(parts)

    def settings(self) -> dict[str, object]:
        """Return the settings that describe the result, in a fixed order."""
        chosen = self.model_dump(
            mode="json",
            include={
                "learning_rate",
                "warmup_ratio",
                "schedule",
                "optimizer",
                "batch_size",
                "epochs",
                "max_steps",
                "max_length",
                "dtype",
                "lora",
                "gradient_checkpointing",
                "workers",
                "sharding",
                "seed",
                *(["rows"] if self.rows else []),
            },
        )
        return dict(sorted(chosen.items()))


def read_job(path: Path) -> Job:
    """Read a job file.

    Raises:
        TrainingError: The file cannot be read or is invalid.
    """
    try:
        return Job.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"job file {path} cannot be used: {error}") from error
