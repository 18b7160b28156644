"""Settings of the dataset service: environment variables `CODEALIGN_DATASET_*`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


class DatasetSettings(ServerSettings):
    """Where records and versions are kept, and how much is taken at once."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_DATASET_")

    data_dir: Path = Path("data/dataset")
    """Folder of everything that lies on this machine."""
    database_url: SecretStr = SecretStr("")
    """sqlite:///<file> or postgresql://<user>:<password>@<host>/<db>. Empty: records.db in `data_dir`."""
    versions_url: str = ""
    """Folder of published versions: a path, or s3://, gs:// and the like. Empty: versions in `data_dir`."""
    connections: int = Field(default=8, ge=1, le=200)
    """Database connections for reading; as many again write, except in SQLite, which has one writer."""
    max_record_bytes: int = Field(default=8 * 2**20, ge=1024)
    """Size of one record."""
    start_wait_seconds: float = Field(default=60.0, ge=0)
    """A database that is away at start is waited for so long."""
    probe_seconds: float = Field(default=5.0, gt=0)
    """The database is looked at this often; readiness follows what is found."""

    @property
    def database(self) -> str:
        """The database's URL, password included."""
        default = f"sqlite:///{(self.data_dir / 'records.db').absolute()}"
        return self.database_url.get_secret_value() or default

    @property
    def versions(self) -> str:
        """The URL of the folder of versions."""
        return self.versions_url or str((self.data_dir / "versions").absolute())

    @property
    def max_answer_bytes(self) -> int:
        """Records in one answer: what its message holds, less room for what is around them."""
        return self.max_message_bytes * 3 // 4
