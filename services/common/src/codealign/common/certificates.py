"""Reads certificates: their common names and validity.

The standard library does not expose these fields of a certificate that is not a CA's. Only they are needed, and RFC
5280 fixes their position, so they are read directly from the DER. Nothing is verified here: the certificates were
verified by TLS or are the process's own.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_DAY = "%Y-%m-%d %H:%M UTC"
_COMMON_NAME = bytes.fromhex("0603550403")
"""Object identifier 2.5.4.3 with its tag and length."""
_VERSION, _UTC_TIME = 0xA0, 0x17
_TEXTS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii"}
"""UTF8String, PrintableString and IA5String: the encodings of common names in use today."""


@dataclass(frozen=True)
class Certificate:
    """The fields read from a certificate."""

    common_names: tuple[str, ...]
    """Common names of its subject. A name in an outdated encoding becomes an empty text, which matches nobody."""
    not_before: datetime
    not_after: datetime


def read(pem: bytes) -> list[Certificate]:
    """Return the certificates of a PEM file in order. In a chain, the owner's certificate is first.

    Raises:
        ValueError: There is no certificate, or one cannot be read.
    """
    found = _PEM.findall(pem)
    if not found:
        raise ValueError("it contains no PEM certificate")
    try:
        return [_certificate(base64.b64decode(text)) for text in found]
    except (binascii.Error, IndexError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError("its certificate is damaged") from error


def why_invalid(certificate: Certificate) -> str:
    """Return why a certificate is not valid now, or "" if it is."""
    now = datetime.now(UTC)
    if now > certificate.not_after:
        return f"expired on {certificate.not_after:{_DAY}}"
    if now < certificate.not_before:
        return (
            f"is valid only from {certificate.not_before:{_DAY}}, and this machine's clock says {now:{_DAY}} (set "
            "the clock, or wait)"
        )
    return ""


def why_mismatched(chain: Path, key: Path) -> str:
    """Return why a private key does not match a certificate, or "" if it does."""

    def no_password() -> bytes:  # otherwise OpenSSL would ask for one on the terminal
        raise ValueError("it is encrypted")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "it belongs to another certificate"
        return f"it is not a PEM private key ({error.reason or error})"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _certificate(der: bytes) -> Certificate:
    signed = next(_values(next(_values(der))[1]))[1]
    # [version], serial number, algorithm, issuer, validity, subject, ...
    fields = [content for tag, content in _values(signed) if tag != _VERSION]
    validity, subject = fields[3], fields[4]
    begin, end = (_time(tag, content) for tag, content in _values(validity))
    return Certificate(tuple(_common_names(subject)), begin, end)


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and content of consecutive values."""
    at = 0
    while at < len(der):
        tag, length, start = der[at], der[at + 1], at + 2
        if length & 0x80:  # the length of the length
            start += length & 0x7F
            length = int.from_bytes(der[at + 2 : start])
        at = start + length
        if at > len(der):
            raise IndexError("a value exceeds the data")
        yield tag, der[start:at]


def _common_names(subject: bytes) -> Iterator[str]:
    for _, attributes in _values(subject):
        for _, attribute in _values(attributes):
            if attribute.startswith(_COMMON_NAME):
                tag, content = next(_values(attribute[len(_COMMON_NAME) :]))
                yield content.decode(_TEXTS[tag]) if tag in _TEXTS else ""


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280: 50 and above mean the 20th century
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
