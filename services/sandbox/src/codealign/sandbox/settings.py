"""Settings of the sandbox gateway, from `CODEALIGN_SANDBOX_*`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "codealign"


class SandboxSettings(ServerSettings):
    """Settings of the sandbox gateway: its runners, and the limits of its queue."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_SANDBOX_")

    backend: Literal["runsc", "docker", "grpc", "process"] = "runsc"
    """Where runners come from. runsc: started here with the gVisor binary. docker: started here as containers.
    grpc: pods started elsewhere. process: see `isolation`.
    """
    isolation: Literal["gvisor", "process"] = "gvisor"
    """process: programs run as ordinary processes of this machine, without gVisor. For debugging only: every verdict
    records it, and none of them enters a published version. Never the default, and never a fallback.
    """
    image: str = "codealign-sandbox-runner:0.1.0"
    """Backend docker: image of the runners, which must already be present."""
    docker_runtime: str = "runsc"
    """Backend docker: name of gVisor's runtime in the daemon."""
    runner_target: str = ""
    """Backend grpc: host:port or dns:///host:port. Each address of the name is a runner (a headless Service)."""
    runner_tls_ca_file: Path | None = None
    """CA certificates for the runners (PEM). None: connect to runners without TLS."""
    runner_tls_cert_file: Path | None = None
    """The gateway's client certificate for runners (PEM), for mutual TLS."""
    runner_tls_key_file: Path | None = None
    """Private key of the client certificate (PEM)."""
    runner_tls_name: str = ""
    """Name in every runner's certificate. It is the pool's name, not an address. Empty: the target's host."""
    resolve_seconds: float = Field(default=5.0, gt=0)
    """Seconds between look-ups of the target's addresses."""
    cache_dir: Path = Field(default_factory=_cache_dir)
    """Directory for the runsc binary, the runner's root file system, and facts about this machine."""
    platform: Literal["auto", "systrap", "systrap-no-fast-path", "ptrace"] = "auto"
    """gVisor platform. auto: the faster one of those that pass the probe, remembered for this machine."""
    runners: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Number of gVisor sandboxes that the gateway keeps running."""
    slots: int = Field(default=1, ge=1)
    """Concurrent executions per runner. Several runners with one slot each execute more than one runner with as many
    slots (28% more on two cores), and use more memory (about 100 MB each).
    """
    queue_limit: int = Field(default=1000, ge=1)
    """Maximum number of waiting requests, over all callers. A further one replaces the newest request of the caller
    with the most waiting, or is refused if that is its own caller. Either request fails with RESOURCE_EXHAUSTED.
    """
    attempts: int = Field(default=3, ge=1)
    """Maximum attempts to run a program after runners failed, each on another runner if possible. Then the verdict is
    INFRASTRUCTURE.
    """
    stream_window: int = Field(default=64, ge=1)
    """Maximum number of unanswered requests of one ExecuteStream."""
    idle_seconds: float = Field(default=10.0, ge=0)
    """How long after the last execution an autoscaler is still told that runners are required, in seconds."""
    start_seconds: float = Field(default=120.0, gt=0)
    """Timeout for starting a runner, up to its hello, in seconds."""

    @model_validator(mode="after")
    def _isolation_is_meant(self) -> Self:
        if self.isolation == "process" and self.backend == "runsc":
            self.backend = "process"
        if self.isolation == "process" and self.backend != "process":
            raise ValueError(f"isolation=process requires runners on this machine, not backend={self.backend}")
        if self.backend == "process" and self.isolation != "process":
            raise ValueError(
                "backend=process runs programs without gVisor, for debugging only: also set isolation=process to "
                "confirm"
            )
        return self

    @model_validator(mode="after")
    def _backend_is_whole(self) -> Self:
        if self.backend == "grpc" and not self.runner_target:
            raise ValueError("backend=grpc requires runner_target: the host and port under which all runners are found")
        return self
