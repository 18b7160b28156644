"""The training service's settings."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


class TrainerSettings(ServerSettings):
    """Read from `CODEALIGN_TRAINER_*`."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_TRAINER_")
