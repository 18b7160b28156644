"""The operator's settings: environment variables `CODEALIGN_OPERATOR_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from codealign.common.logs import LogFormat


class OperatorSettings(BaseSettings):
    """Which FineTuneJobs it sees to, what their pods are like, and which services belong to them."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_OPERATOR_")

    namespace: str = Field(min_length=1)
    """The namespace whose FineTuneJobs it sees to; their Jobs and pods are there too."""
    pod_template: Path
    """File with a PodTemplateSpec (YAML). Its first container trains: the operator adds command, variables and
    labels."""
    data_dir: Path
    """Folder of everything that trainings leave, on a volume that the training pods have under the same path. With
    `artifacts_url`: scratch, each pod's own."""
    artifacts_url: str = ""
    """Where trainings keep what they leave in place of that volume: s3://bucket/folder. Empty: on the volume."""
    cache_dir: Path = Field(default_factory=lambda: Path("~/.cache/codealign").expanduser())
    """Where digests of model files are remembered, and fetched models lie: the training pods read them there. With
    `artifacts_url` they fetch those that they do not find there."""
    dataset_address: str = ""
    """host:port of the dataset service: resolves versions and keeps the Checkpoint records. Empty: trainings read
    URLs alone, and leave no record."""
    client_ca_file: Path | None = None
    """Authorities of the dataset service's certificate (PEM). With it the service is called over TLS."""
    client_cert_file: Path | None = None
    """The operator's own client certificate (PEM)."""
    client_key_file: Path | None = None
    """Its private key (PEM)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What training pods compute on. It decides the dtype where a FineTuneJob names none."""
    workers_per_pod: int = Field(default=1, ge=1, le=64)
    """Processes in one pod, where a FineTuneJob does not say; on GPUs that is how many of them a pod has."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of each worker. 0: what the pod template limits or requests, shared among a pod's workers."""
    micro_batch_size: int = Field(default=0, ge=0)
    """Rows that a worker computes at once. 0: chosen by the model's size."""
    max_restarts: int = Field(default=10, ge=0)
    """How often all pods of a training are started anew after one of them ended badly. Lost nodes do not count."""
    interval_seconds: float = Field(default=2.0, gt=0)
    """A FineTuneJob is looked at this often."""
    host: str = "0.0.0.0"  # noqa: S104 - the kubelet asks from outside of the pod
    """Address of the liveness port."""
    liveness_port: int = Field(default=8080, ge=1, le=65535)
    """GET /healthz here says that it lives."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_format: LogFormat = "json"
    """json or console."""
