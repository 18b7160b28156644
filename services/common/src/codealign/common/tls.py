"""A server's TLS credentials. Files that would make every handshake fail are refused at start-up, with the reason."""

from __future__ import annotations

from pathlib import Path

import grpc

from codealign.common import certificates
from codealign.common.certificates import Certificate
from codealign.common.errors import ConfigurationError
from codealign.common.metrics import CERTIFICATE_EXPIRY
from codealign.common.settings import ServerSettings


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """Return the server's credentials, or None for unencrypted connections.

    Raises:
        ConfigurationError: A file cannot be read, or its content is not valid now.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    key, chain = _pem(settings.tls_key_file, "tls_key_file"), _pem(settings.tls_cert_file, "tls_cert_file")
    own = _certificates(chain, settings.tls_cert_file, "tls_cert_file")[0]
    if reason := certificates.why_invalid(own):
        raise ConfigurationError(
            f"tls_cert_file: the certificate in {settings.tls_cert_file} {reason}. Replace it and its key by valid "
            "ones, and restart"
        )
    _check_pair(settings.tls_cert_file, settings.tls_key_file)
    CERTIFICATE_EXPIRY.labels(", ".join(own.common_names)).set(own.not_after.timestamp())
    if settings.tls_client_ca_file is None:
        return grpc.ssl_server_credentials([(key, chain)])
    authorities = _pem(settings.tls_client_ca_file, "tls_client_ca_file")
    reasons = [
        certificates.why_invalid(each)
        for each in _certificates(authorities, settings.tls_client_ca_file, "tls_client_ca_file")
    ]
    if all(reasons):  # a bundle may contain an old certificate beside its successor
        raise ConfigurationError(
            f"tls_client_ca_file: the CA certificate in {settings.tls_client_ca_file} {reasons[0]}. Every client would "
            "be refused: replace it by the current CA's certificate and restart"
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
    if reason := certificates.why_mismatched(chain, key):
        raise ConfigurationError(
            f"tls_key_file: the key in {key} does not work with the certificate in {chain} (tls_cert_file): {reason}; "
            "set two files that belong together"
        )
