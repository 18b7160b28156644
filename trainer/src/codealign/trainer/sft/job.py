"""What one training is to do, as the file that the program is given; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingError(Exception):
    """The training cannot go on, and another try would end the same way; the message says why and what to do."""


class LoraSettings(BaseModel):
    """Parameter-efficient tuning (arXiv 2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    target_modules: tuple[str, ...] = ()
    """Names of linear layers. Empty: every one but the output layer."""
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Job(BaseModel):
    """One training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_id: str
    """Names the training: its checkpoints are no other's."""
    model: Path
    """Folder of the base model."""
    model_source: str = ""
    """Where a pod whose disk has no such folder gets it: an fsspec URL, or hf://<hub id>@<commit>. Empty: nowhere."""
    model_name: str
    """What people call the base model."""
    model_revision: str
    """Its hash."""
    dataset: str
    """fsspec URL of a folder with Parquet files, or of one such file."""
    dataset_name: str
    """What people call the dataset: the published version's name."""
    output: Path
    """Everything that the training leaves goes here."""
    learning_rate: float = 1e-5
    warmup_ratio: float = 0.05
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    batch_size: int = Field(default=64, ge=1)
    """Rows per optimizer step, over all workers."""
    micro_batch_size: int = Field(default=1, ge=1)
    """Rows that a worker computes at once; `batch_size` is reached by accumulation."""
    epochs: float = Field(default=4.0, gt=0)
    max_steps: int = Field(default=0, ge=0)
    max_length: int = Field(default=1280, ge=2)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of weights, gradients and computation."""
    device: Literal["cpu", "cuda"] = "cpu"
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    workers: int = Field(default=1, ge=1)
    sharding: Literal["fsdp", "ddp"] = "fsdp"
    checkpoint_steps: int = Field(default=100, ge=1)
    seed: int = 0
    threads: int = Field(default=0, ge=0)
    """CPU threads of each worker. 0: PyTorch's own choice."""
    max_restarts: int = Field(default=3, ge=0)
    """How often workers that died are started again from the last checkpoint."""

    @property
    def library_seed(self) -> int:
        """The seed as numpy takes it: 32 bits, no sign."""
        return self.seed % 2**32

    @property
    def sharded(self) -> bool:
        """Parameters, gradients and optimizer state are split over the workers."""
        return self.workers > 1 and self.sharding == "fsdp"

    @property
    def progress_file(self) -> Path:
        """Events as JSON lines."""
        return self.output / "progress.jsonl"

    @property
    def outcome_file(self) -> Path:
        """How it ended."""
        return self.output / "outcome.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.output / "checkpoints"

    @property
    def result(self) -> Path:
        """Folder of the trained model."""
        return self.output / "model"

    @property
    def setup(self) -> str:
        """What it is trained with, as a line for people."""
        parts = [f"{self.dtype} on {self.device}", f"{self.workers} worker{'s' if self.workers > 1 else ''}"]
        if self.workers > 1:
            parts.append(self.sharding)
        if self.lora:
            parts.append(f"LoRA rank {self.lora.rank}")
        return ", ".join(parts)

    def settings(self) -> dict[str, object]:
        """What a reader of the result wants to know of the training, in a fixed order."""
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
            },
        )
        return dict(sorted(chosen.items()))


def read_job(path: Path) -> Job:
    """Read a job file.

    Raises:
        TrainingError: It cannot be read.
    """
    try:
        return Job.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"job file {path} cannot be used: {error}") from error
