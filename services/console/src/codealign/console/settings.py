"""Settings of the console as a service: environment variables `CODEALIGN_CONSOLE_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from codealign.common.logs import LogFormat
from codealign.common.settings import LOOPBACK, check_tls_files


class ConsoleSettings(BaseSettings):
    """Where the console listens, who may read it, and where its services are."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_CONSOLE_")

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback requires TLS with client certificates, unless `allow_plaintext` is
    set.
    """
    port: int = Field(default=8484, ge=0, le=65535)
    """HTTP port. 0: any free port."""
    host_names: str = ""
    """Further names under which browsers may reach it, separated by commas: a request for another name is refused.
    Loopback names are always accepted.
    """
    dataset_address: str = ""
    """host:port of the dataset service. Empty: its pages say that it is missing."""
    coordinator_address: str = ""
    """host:port of the coordinator."""
    training_address: str = ""
    """host:port of the training service."""
    client_ca_file: Path | None = None
    """CA certificates of the services (PEM). Enables TLS towards them."""
    client_cert_file: Path | None = None
    """The console's certificate for mutual TLS towards the services (PEM)."""
    client_key_file: Path | None = None
    """Private key of that certificate (PEM)."""
    tls_cert_file: Path | None = None
    """The console's own certificate chain (PEM). Enables HTTPS."""
    tls_key_file: Path | None = None
    """Private key of the certificate (PEM)."""
    tls_client_ca_file: Path | None = None
    """CA certificates for browsers' certificates (PEM): a browser without such a certificate, with the common name
    `client`, is refused.
    """
    allow_plaintext: bool = False
    """Allow addresses other than loopback without client certificates: behind a proxy that authenticates people."""
    log_level: str = "info"
    """Log level: debug, info, warning or error."""
    log_format: LogFormat = "json"
    """Log format: json or console."""

    @model_validator(mode="after")
    def _is_protected(self) -> Self:
        check_tls_files(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)
        if self.host not in LOOPBACK and self.tls_client_ca_file is None and not self.allow_plaintext:
            raise ValueError(
                f"host {self.host} is reachable from outside, but everyone could read the console: set "
                "tls_client_ca_file to require client certificates, or allow_plaintext=true behind a proxy that "
                "authenticates people"
            )
        return self

    @property
    def names(self) -> frozenset[str]:
        """Host names that requests may name."""
        return frozenset({*LOOPBACK, *(name.strip().lower() for name in self.host_names.split(",") if name.strip())})
