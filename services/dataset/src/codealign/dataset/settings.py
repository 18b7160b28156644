"""Settings of the dataset service: environment variables `CODEALIGN_DATASET_*`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


class DatasetSettings(ServerSettings):
    """Where records and versions are stored, and the limits of requests."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_DATASET_")

    data_dir: Path = Path("data/dataset")
    """Directory for all local data."""
    database_url: SecretStr = SecretStr("")
    """sqlite:///<file> or postgresql://<user>:<password>@<host>/<db>. Empty: records.db in `data_dir`."""
    versions_url: str = ""
    """Parent of the published versions: a path, or a URL such as s3:// or gs://. Empty: versions in `data_dir`."""
    connections: int = Field(default=8, ge=1, le=200)
    """Database connections for reading. The same number is used for writing, except in SQLite, which has one writer."""
    max_record_bytes: int = Field(default=8 * 2**20, ge=1024)
    """Maximum size of a record in bytes."""
    start_wait_seconds: float = Field(default=60.0, ge=0)
    """How long to wait at start-up for an unavailable database, in seconds."""
    probe_seconds: float = Field(default=5.0, gt=0)
    """Seconds between probes of the database, which determine readiness."""

    @property
    def database(self) -> str:
        """URL of the database, including its password."""
        default = f"sqlite:///{(self.data_dir / 'records.db').absolute()}"
        return self.database_url.get_secret_value() or default

    @property
    def versions(self) -> str:
        """URL of the versions' parent directory."""
        return self.versions_url or str((self.data_dir / "versions").absolute())

    @property
    def max_answer_bytes(self) -> int:
        """Maximum bytes of records in one response: the message limit minus space for the other fields."""
        return self.max_message_bytes * 3 // 4
