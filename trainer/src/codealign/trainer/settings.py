"""The training service's settings: environment variables `CODEALIGN_TRAINER_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


class TrainerSettings(ServerSettings):
    """Where trainings are kept, what they run on, and which services belong to them."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_TRAINER_")

    data_dir: Path = Path("data/training")
    """Folder of everything that trainings leave: state, checkpoints, trained models."""
    cache_dir: Path = Field(default_factory=lambda: Path("~/.cache/codealign").expanduser())
    """Where digests of model files are remembered, and fetched models lie."""
    dataset_address: str = ""
    """host:port of the dataset service: resolves versions and keeps the Checkpoint records. Empty: trainings read
    URLs alone, and leave no record."""
    inference_address: str = ""
    """host:port of an inference service on the same machine, whose models may be unloaded to make room. Empty: none."""
    client_ca_file: Path | None = None
    """Authorities of the other services' certificates (PEM). With it they are called over TLS."""
    client_cert_file: Path | None = None
    """This service's own client certificate (PEM)."""
    client_key_file: Path | None = None
    """Its private key (PEM)."""
    backend: Literal["local", "kubernetes"] = "local"
    """local: trainings run on this machine. kubernetes: each is a FineTuneJob, which the operator sees to."""
    namespace: str = ""
    """kubernetes: the namespace of the FineTuneJobs, which is the operator's."""
    artifacts_url: str = ""
    """kubernetes: where trainings keep what they leave in place of a shared volume, which is the operator's setting
    too. Empty: in `data_dir`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPUs where `nvidia-smi` finds some; with the backend kubernetes it must be what the training pods
    compute on."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of each worker. 0: the cores, shared among the workers."""
    micro_batch_size: int = Field(default=0, ge=0)
    """Rows that a worker computes at once. 0: chosen by the model's size."""
    max_restarts: int = Field(default=3, ge=0)
    """How often a training whose process died goes on from its last checkpoint."""
    follow_seconds: float = Field(default=0.3, gt=0)
    """A running training is looked at this often."""
    unload_wait_seconds: float = Field(default=20.0, ge=0)
    """Memory of unloaded models may take so long to come free."""

    @model_validator(mode="after")
    def _cluster_is_whole(self) -> Self:
        if self.backend == "kubernetes":
            if not self.namespace:
                raise ValueError("backend is kubernetes and namespace is not set: give that of the operator")
            if self.device == "auto":
                raise ValueError("backend is kubernetes and device is auto: set cpu or cuda, as the training pods are")
        elif self.artifacts_url:
            raise ValueError("artifacts_url is set and backend is local: leave it empty, and set data_dir")
        return self
