"""The coordinator's settings."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


def _unique_name() -> str:
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


class CoordinatorSettings(ServerSettings):
    """Read from `CODEALIGN_COORDINATOR_*`."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_COORDINATOR_")

    dataset_address: str
    """host:port of the dataset service."""
    inference_address: str = ""
    """host:port of the inference service."""
    sandbox_address: str = ""
    """host:port of the sandbox gateway."""
    training_address: str = ""
    """host:port of the training service. Empty: no loop can be asked for."""
    reads_only: bool = False
    """Tell of runs, and take none up: with the dataset service alone, as `codealign report` starts it for itself."""
    client_ca_file: Path | None = None
    """Authorities of the other services' certificates (PEM). With it they are called over TLS."""
    client_cert_file: Path | None = None
    """The coordinator's own client certificate (PEM)."""
    client_key_file: Path | None = None
    """Its private key (PEM)."""
    benchmarks: Path | None = None
    """A .jsonl(.gz) file of benchmark tasks, or a folder of them: their texts are kept out of seeds and rows."""
    evaluation_data: Path | None = None
    """A benchmark file, or a folder of them, that models are evaluated on: EvalPlus' layout or HumanEval's, .jsonl or
    .jsonl.gz. What is not there comes from the Hugging Face hub."""
    lease_holder: str = Field(default_factory=_unique_name)
    """The name of this process in the store's leases; no two living processes may share one. A process that is
    restarted under the same name takes its runs up at once after a kill, without waiting for `lease_seconds`."""
    lease_seconds: float = Field(default=15.0, ge=1, le=3600)
    """Another coordinator may take a run over when this one was silent for so long."""
    seeds_in_flight: int = Field(default=0, ge=0)
    """Seeds (in an evaluation: problems) that are between their first and their last stage at once, at most. 0: as many
    as keep inference and sandbox busy, and no more than bounds memory, whatever the run's size."""
    generations_in_flight: int = Field(default=0, ge=0)
    """Samples at inference at once, at most. 0: as many as its engine has slots for, and a small queue."""
    executions_in_flight: int = Field(default=0, ge=0)
    """Programs at the sandbox at once, queued ones included, at most. 0: as many as it has slots for, and a small
    queue."""
    generation_timeout_seconds: float = Field(default=3600.0, gt=0)
    """One call to inference may take so long."""

    @model_validator(mode="after")
    def _addresses_are_given(self) -> Self:
        if not self.reads_only:
            for name in ("inference_address", "sandbox_address"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is not set: host:port of a service that every run needs")
        return self
