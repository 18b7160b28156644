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
    """Where runners come from, how many, and how much may wait for them."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_SANDBOX_")

    backend: Literal["runsc", "docker", "grpc", "process"] = "runsc"
    """Where runners come from. runsc: started here with gVisor's own binary. docker: started here as containers.
    grpc: pods that someone else starts. process: see `isolation`."""
    isolation: Literal["gvisor", "process"] = "gvisor"
    """process: programs run as ordinary processes of this machine, without gVisor. For debugging only: every verdict
    says so, and none of them enters a published version. Never the default, and never a fallback."""
    image: str = "codealign-sandbox-runner:0.1.0"
    """Backend docker: the runners' image, which must be there already."""
    docker_runtime: str = "runsc"
    """Backend docker: the name that the daemon knows gVisor by."""
    runner_target: str = ""
    """Backend grpc: host:port or dns:///host:port. Each address that the name has is a runner (a headless Service)."""
    runner_tls_ca_file: Path | None = None
    """Authorities of the runners' certificates (PEM). None: they are spoken to in the clear."""
    runner_tls_cert_file: Path | None = None
    """The gateway's own certificate for them (PEM), where TLS is mutual."""
    runner_tls_key_file: Path | None = None
    """Its private key (PEM)."""
    runner_tls_name: str = ""
    """The name in every runner's certificate: it is the pool's, not an address. Empty: the target's host."""
    resolve_seconds: float = Field(default=5.0, gt=0)
    """Between two looks at the target's addresses."""
    cache_dir: Path = Field(default_factory=_cache_dir)
    """Holds the runsc binary, the runner's root file system, and what is known of this machine."""
    platform: Literal["auto", "systrap", "ptrace"] = "auto"
    """gVisor's platform. auto: of those that pass the probe the faster, remembered for this machine."""
    profile: Literal["default", "numpy"] = "default"
    """What the runners have warm, and may be imported: the standard library, or numpy too. With numpy, a request may
    still ask for profile default."""
    runners: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """gVisor sandboxes that the gateway keeps."""
    slots: int = Field(default=1, ge=1)
    """Executions at once, in each runner. Several runners with one slot each execute more than one runner with as
    many slots (28% more on two cores), and take more memory (about 100 MB each)."""
    queue_limit: int = Field(default=1000, ge=1)
    """Requests that may wait, of all callers together. One more pushes out the newest of whoever has the most waiting,
    or is refused itself where that is its own caller: RESOURCE_EXHAUSTED either way."""
    attempts: int = Field(default=3, ge=1)
    """How often a program is given to a runner that then fails it, another one each time where there is one, before
    the verdict is INFRASTRUCTURE."""
    stream_window: int = Field(default=64, ge=1)
    """Requests of one ExecuteStream that are taken before the first of them is answered."""
    idle_seconds: float = Field(default=10.0, ge=0)
    """For so long after the last execution an autoscaler is still told that runners are needed."""
    start_seconds: float = Field(default=120.0, gt=0)
    """How long a runner may take from its start to its hello."""

    @model_validator(mode="after")
    def _isolation_is_meant(self) -> Self:
        if self.isolation == "process" and self.backend == "runsc":
            self.backend = "process"
        if self.isolation == "process" and self.backend != "process":
            raise ValueError(f"isolation=process is for runners of this machine alone, not for backend={self.backend}")
        if self.backend == "process" and self.isolation != "process":
            raise ValueError(
                "backend=process runs programs without gVisor, for debugging only: set isolation=process too if that "
                "is what you want"
            )
        return self

    @model_validator(mode="after")
    def _backend_is_whole(self) -> Self:
        if self.backend == "grpc" and not self.runner_target:
            raise ValueError("backend=grpc needs runner_target: the host and port that all runners are found by")
        return self
