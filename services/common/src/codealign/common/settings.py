"""Settings common to all servers. A service's own class extends them and sets the prefix of its variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings

from codealign.common.errors import ConfigurationError
from codealign.common.logs import LogFormat

SettingsT = TypeVar("SettingsT", bound=BaseSettings)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts that only this machine reaches."""


class ServerSettings(BaseSettings):
    """Addresses, TLS, limits and shutdown of a server."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback requires TLS, unless `allow_plaintext` is set."""
    port: int = Field(default=0, ge=0, le=65535)
    """gRPC port. 0: any free port."""
    health_port: int = Field(default=0, ge=0, le=65535)
    """Plain-text port of the Health service, for probes. 0: any free port."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Plain HTTP port of /metrics. 0: any free port."""
    endpoint_file: Path | None = None
    """File to which the addresses in use are written as JSON once the server listens. Removed at shutdown."""
    max_message_bytes: int = Field(default=64 * 2**20, gt=0)
    """Maximum size of a message in bytes, in both directions."""
    max_deadline_seconds: float = Field(default=24 * 3600.0, gt=0)
    """Maximum duration of a call in seconds, also for calls without a deadline."""
    drain_seconds: float = Field(default=20.0, ge=0)
    """Grace period for in-flight work after shutdown starts, in seconds."""
    tls_cert_file: Path | None = None
    """Certificate chain (PEM). Enables TLS."""
    tls_key_file: Path | None = None
    """Private key of the certificate (PEM)."""
    tls_client_ca_file: Path | None = None
    """CA certificates for client certificates (PEM). Enables mutual TLS, where a certificate's common name determines
    what its owner may call.
    """
    allow_plaintext: bool = False
    """Allow addresses other than loopback without TLS (behind a mesh that encrypts)."""
    log_level: str = "info"
    """Log level: debug, info, warning or error."""
    log_format: LogFormat = "json"
    """Log format: json or console."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        check_tls_files(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)
        if self.tls_cert_file is None and self.host not in LOOPBACK and not self.allow_plaintext:
            raise ValueError(
                f"host {self.host} is reachable from outside but no TLS certificate is set: set tls_cert_file and "
                "tls_key_file, or allow_plaintext=true behind an encrypting mesh"
            )
        return self


def check_tls_files(certificate: Path | None, key: Path | None, client_authority: Path | None) -> None:
    """Check that the files of a listening server's settings belong together.

    Args:
        certificate: The setting `tls_cert_file`.
        key: The setting `tls_key_file`.
        client_authority: The setting `tls_client_ca_file`.

    Raises:
        ValueError: Names the setting that is missing.
    """
    if (certificate is None) != (key is None):
        raise ValueError("tls_cert_file and tls_key_file must be set together, or neither")
    if client_authority is not None and certificate is None:
        raise ValueError("tls_client_ca_file requires tls_cert_file and tls_key_file")


def load(cls: type[SettingsT], program: str = "") -> SettingsT:
    """Read settings from the environment.

    Args:
        cls: Class of the settings.
        program: The program's name, if it also reads flags (`--log-level`, ...), which override the environment. An
            unknown flag ends it with exit code 2, `--help` with 0.

    Raises:
        ConfigurationError: Names every invalid variable.
    """
    flags: dict[str, Any] = {"_cli_parse_args": True, "_cli_prog_name": program, "_cli_kebab_case": True}
    try:
        return cls(**(flags if program else {}))
    except ValidationError as error:
        prefix = str(cls.model_config.get("env_prefix", ""))
        lines = []
        for item in error.errors():
            name = prefix + "_".join(str(part) for part in item["loc"]).upper() if item["loc"] else "settings"
            if item["loc"] and program:
                name += f" (--{str(item['loc'][0]).replace('_', '-')})"
            lines.append(f"{name}: {item['msg'].removeprefix('Value error, ')}")
        raise ConfigurationError("; ".join(lines)) from None
