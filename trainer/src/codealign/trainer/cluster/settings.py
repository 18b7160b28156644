"""Operator settings: `CODEALIGN_OPERATOR_*` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from codealign.common.logs import LogFormat


class OperatorSettings(BaseSettings):
    """The namespace that the operator manages, its training pods and the services that it uses."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_OPERATOR_")

    namespace: str = Field(min_length=1)
    """Namespace of the FineTuneJobs, their Jobs and their pods."""
    pod_template: Path
    """File with a PodTemplateSpec (YAML). The first container runs the training: the operator adds its command,
    environment variables and labels."""
    data_dir: Path
    """Directory for training state, checkpoints and trained models, on a volume that training pods mount at the same
    path. With `artifacts_url`: a scratch directory of each pod."""
    artifacts_url: str = ""
    """URL for training state, checkpoints and trained models, in place of the shared volume: s3://bucket/folder. Empty:
    use the volume."""
    cache_dir: Path = Field(default_factory=lambda: Path("~/.cache/codealign").expanduser())
    """Directory for digests of model files and downloaded models, which training pods read. With `artifacts_url`, they
    download models that are missing there."""
    dataset_address: str = ""
    """Address (host:port) of the dataset service, which resolves dataset versions and stores Checkpoint records. Empty:
    trainings read URLs only and leave no record."""
    client_ca_file: Path | None = None
    """CA certificates of the dataset service (PEM). If set, connections use TLS."""
    client_cert_file: Path | None = None
    """Client certificate of the operator (PEM)."""
    client_key_file: Path | None = None
    """Private key of the client certificate (PEM)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the training pods. It determines the default dtype of a FineTuneJob."""
    workers_per_pod: int = Field(default=1, ge=1, le=64)
    """Worker processes per pod, unless the FineTuneJob sets them; on GPUs, the number of GPUs per pod."""
    threads: int = Field(default=0, ge=0)
    """CPU threads per worker. 0: the pod template's CPU limit or request, shared among the pod's workers."""
    micro_batch_size: int = Field(default=0, ge=0)
    """Rows that a worker processes at once. 0: chosen by model size."""
    max_restarts: int = Field(default=10, ge=0)
    """Maximum number of times that all pods of a training are restarted after a pod failed. Lost nodes do not count."""
    interval_seconds: float = Field(default=2.0, gt=0)
    """Seconds between polls of each FineTuneJob."""
    host: str = "0.0.0.0"  # noqa: S104 - the kubelet probes from outside the pod
    """Bind address of the liveness port."""
    liveness_port: int = Field(default=8080, ge=1, le=65535)
    """Port of the liveness probe, GET /healthz."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Plain HTTP port of /metrics. 0: any free port."""
    log_level: str = "info"
    """Log level: debug, info, warning or error."""
    log_format: LogFormat = "json"
    """Log format: json or console."""
