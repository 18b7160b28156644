"""Settings of the sandbox gateway, from `CODEALIGN_SANDBOX_*`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "codealign"


class SandboxSettings(ServerSettings):
    """Where runners come from, how many, and how much may wait for them."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_SANDBOX_")

    cache_dir: Path = Field(default_factory=_cache_dir)
    """Holds the runsc binary, the runner's root file system, and what is known of this machine."""
    platform: Literal["auto", "systrap", "ptrace"] = "auto"
    """gVisor's platform. auto: of those that pass the probe the faster, remembered for this machine."""
    profile: str = "default"
    """The profile that the runners have warm."""
    runners: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """gVisor sandboxes that the gateway keeps."""
    slots: int = Field(default=1, ge=1)
    """Executions at once, in each runner. Several runners with one slot each execute more than one runner with as
    many slots (28% more on two cores), and take more memory (about 100 MB each)."""
    queue_limit: int = Field(default=1000, ge=1)
    """Requests that may wait; one more is RESOURCE_EXHAUSTED."""
    attempts: int = Field(default=3, ge=1)
    """How often a program is given to a runner that then dies before the verdict is INFRASTRUCTURE."""
    stream_window: int = Field(default=64, ge=1)
    """Requests of one ExecuteStream that are taken before the first of them is answered."""
    start_seconds: float = Field(default=120.0, gt=0)
    """How long a runner may take from its start to its hello."""
