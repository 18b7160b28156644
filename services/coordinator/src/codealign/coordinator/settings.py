"""Settings of the coordinator."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from codealign.common.errors import FailedPrecondition
from codealign.common.settings import ServerSettings


def _unique_name() -> str:
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


class CoordinatorSettings(ServerSettings):
    """Settings of the coordinator, read from `CODEALIGN_COORDINATOR_*`."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_COORDINATOR_")

    dataset_address: str
    """Address of the dataset service (host:port)."""
    inference_address: str = ""
    """Address of the inference service (host:port)."""
    sandbox_address: str = ""
    """Address of the sandbox gateway (host:port)."""
    training_address: str = ""
    """Address of the training service (host:port). Empty: loops are not available."""
    reads_only: bool = False
    """Report on runs without executing any. Needs the dataset service only; set by `codealign report` for the
    coordinator that it starts."""
    client_ca_file: Path | None = None
    """CA certificates for the other services (PEM). If set, they are called over TLS."""
    client_cert_file: Path | None = None
    """The coordinator's client certificate (PEM)."""
    client_key_file: Path | None = None
    """The coordinator's private key (PEM)."""
    benchmarks: Path | None = None
    """A .jsonl(.gz) file of benchmark tasks, or a directory of such files. Seeds and rows that contain their text are
    dropped."""
    evaluation_data: Path | None = None
    """A benchmark file for evaluations, or a directory of such files: EvalPlus or HumanEval layout, .jsonl or
    .jsonl.gz. Benchmarks that are not found there are downloaded from the Hugging Face Hub."""
    lease_holder: str = Field(default_factory=_unique_name)
    """Name of this process in the store's leases; must be unique among running processes. A process that is killed and
    restarted under the same name resumes its runs at once, without waiting for `lease_seconds`."""
    lease_seconds: float = Field(default=15.0, ge=1, le=3600)
    """Seconds without lease renewal after which another coordinator may take over a run."""
    seeds_in_flight: int = Field(default=0, ge=0)
    """Maximum seeds (in an evaluation: problems) between their first and last stage. 0: as many as keep inference and
    sandbox busy, within a fixed memory bound."""
    generations_in_flight: int = Field(default=0, ge=0)
    """Maximum samples at inference. 0: the engine's slots and a short queue."""
    executions_in_flight: int = Field(default=0, ge=0)
    """Maximum programs at the sandbox, queued ones included. 0: the sandbox's slots and a short queue."""
    generation_timeout_seconds: float = Field(default=3600.0, gt=0)
    """Timeout for one call to inference, in seconds."""

    def must_work(self) -> None:
        """Refuse a request for work if this coordinator only reports.

        Raises:
            FailedPrecondition: It is read-only.
        """
        if self.reads_only:
            raise FailedPrecondition("this coordinator is read-only: CODEALIGN_COORDINATOR_READS_ONLY is set")

    @model_validator(mode="after")
    def _addresses_are_given(self) -> Self:
        if not self.reads_only:
            for name in ("inference_address", "sandbox_address"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is not configured: set it to host:port; every run needs this service")
        return self
