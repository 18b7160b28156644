"""Read Python source files as Python does, keeping their line endings."""

from __future__ import annotations

import codecs
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import BinaryIO

from codealign.cli.failures import Failure

MAX_BYTES = 64 * 2**20
"""Maximum size of a program. It protects against device files, which never end."""

_HEAD_BYTES = 4096
_LINE_END = re.compile(r"\r\n|\r|\n")
_FOREIGN_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_source(file: str) -> str:
    """Return the text of a Python source file, or of standard input for "-".

    Raises:
        Failure: The file cannot be read, or its bytes are invalid in its encoding; the message names both.
    """
    if file == "-":
        return decode_source(_limited(sys.stdin.buffer, "standard input"), "standard input")
    return decode_source(read_bytes(Path(file)), file)


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        Failure: The file cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            return _limited(file, str(path))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(f"cannot read {path} ({reason})") from None


def decode_source(data: bytes, name: str) -> str:
    """Decode source by its byte-order mark or its coding line (PEP 263), otherwise as UTF-8, without the mark.

    Args:
        data: The source.
        name: The file's name in messages.

    Raises:
        Failure: See `read_source`.
    """
    foreign = _foreign_encoding(data)
    if foreign:
        raise Failure(f"{name} is {foreign}, which Python cannot read: save it as UTF-8")
    encoding, declared = _encoding(data, name)
    try:
        text = data.decode(encoding)
        text.encode()  # some encodings yield lone surrogates, which are not valid text
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(data[: error.start].decode("latin-1"))) + 1
        told = f"{encoding}, the encoding of its coding line" if declared else "UTF-8"
        hint = "" if declared else ", and it has no coding line: save it as UTF-8, or declare its encoding (PEP 263)"
        raise Failure(
            f"{name} is not valid {told}: invalid byte 0x{data[error.start]:02x} on line {line}{hint}"
        ) from None
    except (LookupError, UnicodeError) as error:
        raise Failure(f"{name} cannot be decoded as {encoding}, the encoding of its coding line: {error}") from None
    return text


def _encoding(data: bytes, name: str) -> tuple[str, bool]:
    """Return the encoding, and whether a coding line declares it."""
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    lines = re.split(rb"\r\n|\r|\n", data[len(mark) : len(mark) + _HEAD_BYTES])[:2]
    # Non-ASCII bytes near the coding line are in the encoding that it declares, which is not known yet.
    head = io.BytesIO(mark + re.sub(rb"[\x80-\xff]", b"?", b"\n".join(lines) + b"\n"))
    try:
        encoding, _ = tokenize.detect_encoding(head.readline)
    except SyntaxError as error:  # the coding line names an unknown encoding, or contradicts the mark
        raise Failure(f"{name}: {error}: Python cannot read it") from None
    return encoding, encoding not in ("utf-8", "utf-8-sig")


def _foreign_encoding(data: bytes) -> str:
    for mark, encoding in _FOREIGN_MARKS:
        if data.startswith(mark):
            return encoding
    # ASCII text in UTF-16 without a mark: every other byte is null.
    start = data[:64]
    for zeros, letters in ((start[1::2], start[::2]), (start[::2], start[1::2])):
        if len(start) >= 4 and not any(zeros) and all(letters):
            return "UTF-16 without a byte-order mark"
    return ""


def _limited(file: BinaryIO, name: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Failure(f"{name} is larger than {MAX_BYTES // 2**20} MiB")
    return data
