"""Settings of a runner pod, from `CODEALIGN_RUNNER_*`."""

from __future__ import annotations

import socket

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings
from codealign.runner.frames import FRAME_LIMIT


class RunnerSettings(ServerSettings):
    """Settings of a runner and its server."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_RUNNER_")

    name: str = Field(default_factory=socket.gethostname, min_length=1)
    """Name of the runner in results and logs. Default: the pod's name."""
    slots: int = Field(default=1, ge=1)
    """Number of concurrent executions."""
    gateways: int = Field(default=8, ge=1)
    """Maximum number of attached gateways, which share the slots. Further ones get RESOURCE_EXHAUSTED."""
    platform: str = ""
    """gVisor platform, if configured with the RuntimeClass. Shown only."""
    gvisor_version: str = ""
    """gVisor release, if configured with the RuntimeClass. Shown only."""
    image_digest: str = ""
    """Digest of the image. Empty: the digest recorded when the image was built."""
    max_message_bytes: int = Field(default=FRAME_LIMIT, gt=0)
    """Maximum size of a frame in bytes, in both directions."""
    max_deadline_seconds: float = Field(default=365 * 24 * 3600.0, gt=0)
    """Maximum lifetime of a stream in seconds. Default: longer than any runner lives."""
