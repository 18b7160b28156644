"""Settings that every server has. A service's own class adds to them and sets the prefix of its variables."""

from __future__ import annotations

from pathlib import Path
from typing import Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings

from codealign.common.errors import ConfigurationError
from codealign.common.logs import LogFormat

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class ServerSettings(BaseSettings):
    """Where a server listens, how it speaks and how it stops."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback without TLS is refused unless `allow_plaintext` is set."""
    port: int = Field(default=0, ge=0, le=65535)
    """gRPC port. 0: any free one."""
    health_port: int = Field(default=0, ge=0, le=65535)
    """Plain port of the Health service alone, for probes. 0: any free one."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Plain HTTP port of /metrics. 0: any free one."""
    endpoint_file: Path | None = None
    """Write the addresses in use to this file as JSON once the server listens; removed at the end."""
    max_message_bytes: int = Field(default=64 * 2**20, gt=0)
    """Size of one message, bytes, in both directions."""
    max_deadline_seconds: float = Field(default=24 * 3600.0, gt=0)
    """A call without a deadline, or with a longer one, gets this."""
    drain_seconds: float = Field(default=20.0, ge=0)
    """What is in flight may take so long to finish once a stop was asked for."""
    tls_cert_file: Path | None = None
    """Certificate chain (PEM). With it the server speaks TLS."""
    tls_key_file: Path | None = None
    """The certificate's private key (PEM)."""
    tls_client_ca_file: Path | None = None
    """Authorities of client certificates (PEM). With it TLS is mutual, and a certificate's common name decides what its
    owner may call."""
    allow_plaintext: bool = False
    """Allow another address than loopback without TLS (behind a mesh that encrypts)."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_format: LogFormat = "json"
    """json or console."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together: set both or neither")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        loopback = self.host in ("127.0.0.1", "::1", "localhost")
        if self.tls_cert_file is None and not loopback and not self.allow_plaintext:
            raise ValueError(
                f"host {self.host} is reachable from outside and no TLS certificate is set: set tls_cert_file and "
                "tls_key_file, or allow_plaintext=true behind an encrypting mesh"
            )
        return self


def load(cls: type[SettingsT]) -> SettingsT:
    """Read settings from the environment.

    Raises:
        ConfigurationError: Names every variable that is wrong.
    """
    try:
        return cls()
    except ValidationError as error:
        prefix = str(cls.model_config.get("env_prefix", ""))
        lines = []
        for item in error.errors():
            name = prefix + "_".join(str(part) for part in item["loc"]).upper() if item["loc"] else "settings"
            lines.append(f"{name}: {item['msg'].removeprefix('Value error, ')}")
        raise ConfigurationError("; ".join(lines)) from None
