"""What a certificate says: its common names, and when it is good.

The standard library tells neither of a certificate that is no authority's and has just been read, and nothing but
these fields is needed: RFC 5280 fixes where they are, so they are read from the DER as it lies. Nothing is verified
here: whoever asks has a certificate that TLS has verified, or its own.
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
"""The object identifier 2.5.4.3, with its tag and length."""
_VERSION, _UTC_TIME = 0xA0, 0x17
_TEXTS = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii"}
"""UTF8String, PrintableString and IA5String: what common names are written in today."""


@dataclass(frozen=True)
class Certificate:
    """What was read of one."""

    common_names: tuple[str, ...]
    """Of its subject. A name in an outdated encoding is an empty text: it is there, and it is nobody's."""
    not_before: datetime
    not_after: datetime


def read(pem: bytes) -> list[Certificate]:
    """The certificates of a PEM file, in their order: of a chain, its owner's is the first.

    Raises:
        ValueError: There is none, or one cannot be read.
    """
    found = _PEM.findall(pem)
    if not found:
        raise ValueError("it has no certificate in PEM")
    try:
        return [_certificate(base64.b64decode(text)) for text in found]
    except (binascii.Error, IndexError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError("its certificate is damaged") from error


def not_good(certificate: Certificate) -> str:
    """Why it is good for nothing now; empty where it is good."""
    now = datetime.now(UTC)
    if now > certificate.not_after:
        return f"expired on {certificate.not_after:{_DAY}}"
    if now < certificate.not_before:
        return (
            f"is good from {certificate.not_before:{_DAY}} only, and by this machine's clock it is {now:{_DAY}} (set "
            "the clock, or wait)"
        )
    return ""


def no_pair(chain: Path, key: Path) -> str:
    """Why a private key does not go with a certificate; empty where it does."""

    def no_password() -> bytes:  # else OpenSSL would ask for one on the terminal
        raise ValueError("it is encrypted")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "it is another certificate's"
        return f"it is no private key in PEM ({error.reason or error})"
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
    """The tag and the content of each value in a row."""
    at = 0
    while at < len(der):
        tag, length, start = der[at], der[at + 1], at + 2
        if length & 0x80:  # the length of the length
            start += length & 0x7F
            length = int.from_bytes(der[at + 2 : start])
        at = start + length
        if at > len(der):
            raise IndexError("a value ends behind its end")
        yield tag, der[start:at]


def _common_names(subject: bytes) -> Iterator[str]:
    for _, attributes in _values(subject):
        for _, attribute in _values(attributes):
            if attribute.startswith(_COMMON_NAME):
                tag, content = next(_values(attribute[len(_COMMON_NAME) :]))
                yield content.decode(_TEXTS[tag]) if tag in _TEXTS else ""


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280: 50 and more are years of the last century
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
