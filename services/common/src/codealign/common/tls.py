"""A server's side of TLS: what would fail every handshake later is refused at the start, with its reason."""

from __future__ import annotations

from pathlib import Path

import grpc
from prometheus_client import Gauge

from codealign.common import certificates
from codealign.common.certificates import Certificate
from codealign.common.errors import ConfigurationError
from codealign.common.settings import ServerSettings

EXPIRY = Gauge(
    "codealign_tls_certificate_expiry_timestamp_seconds",
    "When the certificate that this server was started with ends, in seconds since 1970; absent without TLS",
    ["common_name"],
)


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """What the server shows and whom it believes; None for a connection in the clear.

    Raises:
        ConfigurationError: A file cannot be read, or what is in it is not good now.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    key, chain = _pem(settings.tls_key_file, "tls_key_file"), _pem(settings.tls_cert_file, "tls_cert_file")
    own = _certificates(chain, settings.tls_cert_file, "tls_cert_file")[0]
    if reason := certificates.not_good(own):
        raise ConfigurationError(
            f"tls_cert_file: the certificate in {settings.tls_cert_file} {reason}. Put one that is good there, with "
            "its key, and start again"
        )
    _check_pair(settings.tls_cert_file, settings.tls_key_file)
    EXPIRY.labels(", ".join(own.common_names)).set(own.not_after.timestamp())
    if settings.tls_client_ca_file is None:
        return grpc.ssl_server_credentials([(key, chain)])
    authorities = _pem(settings.tls_client_ca_file, "tls_client_ca_file")
    reasons = [
        certificates.not_good(each)
        for each in _certificates(authorities, settings.tls_client_ca_file, "tls_client_ca_file")
    ]
    if all(reasons):  # a bundle may keep an old one beside its successor
        raise ConfigurationError(
            f"tls_client_ca_file: the authority in {settings.tls_client_ca_file} {reasons[0]}. No client would be let "
            "in: put the authority of today's certificates there and start again"
        )
    return grpc.ssl_server_credentials([(key, chain)], authorities, require_client_auth=True)


def _pem(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting}: cannot read {path} ({error.strerror})") from None


def _certificates(pem: bytes, path: Path, setting: str) -> list[Certificate]:
    try:
        return certificates.read(pem)
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {path} cannot be used: {error}") from None


def _check_pair(chain: Path, key: Path) -> None:
    if reason := certificates.no_pair(chain, key):
        raise ConfigurationError(
            f"tls_key_file: the key in {key} cannot be used with the certificate in {chain} (tls_cert_file): {reason}; "
            "set the two files that were made together"
        )
