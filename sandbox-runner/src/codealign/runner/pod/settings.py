"""Settings of a runner pod, from `CODEALIGN_RUNNER_*`."""

from __future__ import annotations

import socket

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings
from codealign.runner.frames import FRAME_LIMIT
from codealign.runner.profiles import DEFAULT


class RunnerSettings(ServerSettings):
    """What this runner is, and how many gateways it serves."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_RUNNER_")

    name: str = Field(default_factory=socket.gethostname, min_length=1)
    """Its own, in results and logs: the pod's."""
    slots: int = Field(default=1, ge=1)
    """Executions at once."""
    profile: str = DEFAULT.name
    """The profile that is warm."""
    gateways: int = Field(default=8, ge=1)
    """Streams at once; one more is RESOURCE_EXHAUSTED. All of them share the slots."""
    platform: str = ""
    """gVisor's, where whoever made the RuntimeClass knows it: shown, and nothing else."""
    gvisor_version: str = ""
    """The same of its release."""
    image_digest: str = ""
    """Of the image that this runs in. Empty: what the image's build has written down."""
    max_message_bytes: int = Field(default=FRAME_LIMIT, gt=0)
    """Size of one frame, bytes, in both directions."""
    max_deadline_seconds: float = Field(default=365 * 24 * 3600.0, gt=0)
    """A stream lives as long as the runner."""
