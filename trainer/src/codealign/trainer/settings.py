"""Training service settings: `CODEALIGN_TRAINER_*` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


class TrainerSettings(ServerSettings):
    """Storage and hardware of trainings, and the services that the trainer uses."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_TRAINER_")

    data_dir: Path = Path("data/training")
    """Directory for training state, checkpoints and trained models."""
    cache_dir: Path = Field(default_factory=lambda: Path("~/.cache/codealign").expanduser())
    """Directory for digests of model files and downloaded models."""
    dataset_address: str = ""
    """Address (host:port) of the dataset service, which resolves dataset versions and stores Checkpoint records. Empty:
    trainings read URLs only and leave no record."""
    inference_address: str = ""
    """Address (host:port) of an inference service on this machine, whose models may be unloaded to free memory. Empty:
    none."""
    client_ca_file: Path | None = None
    """CA certificates of the other services (PEM). If set, connections use TLS."""
    client_cert_file: Path | None = None
    """Client certificate of this service (PEM)."""
    client_key_file: Path | None = None
    """Private key of the client certificate (PEM)."""
    backend: Literal["local", "kubernetes"] = "local"
    """local: trainings run on this machine. kubernetes: each training is a FineTuneJob, run by the operator."""
    namespace: str = ""
    """kubernetes: namespace of the operator and its FineTuneJobs."""
    artifacts_url: str = ""
    """kubernetes: URL for training state, checkpoints and trained models in place of a shared volume; must match the
    operator's setting. Empty: use `data_dir`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: GPUs if `nvidia-smi` finds any, else the CPU. Backend kubernetes: must be set to the device of the training
    pods."""
    threads: int = Field(default=0, ge=0)
    """CPU threads per worker. 0: this machine's cores, shared among the workers."""
    micro_batch_size: int = Field(default=0, ge=0)
    """Rows that a worker processes at once. 0: chosen by model size."""
    max_restarts: int = Field(default=3, ge=0)
    """Maximum number of times that a training whose process died is resumed from its last checkpoint."""
    follow_seconds: float = Field(default=0.3, gt=0)
    """Seconds between polls of a running training."""
    unload_wait_seconds: float = Field(default=20.0, ge=0)
    """Seconds to wait until the memory of unloaded models is free."""

    @model_validator(mode="after")
    def _cluster_is_whole(self) -> Self:
        if self.backend == "kubernetes":
            if not self.namespace:
                raise ValueError("namespace is required for backend kubernetes: set it to the operator's namespace")
            if self.device == "auto":
                raise ValueError(
                    "device auto is not supported for backend kubernetes: set cpu or cuda to match the training pods"
                )
        elif self.artifacts_url:
            raise ValueError("artifacts_url is not supported for backend local: leave it empty and set data_dir")
        return self
