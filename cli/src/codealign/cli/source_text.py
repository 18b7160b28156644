"""Python source files as text, read as Python reads them, with their line ends as they are."""

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
"""No program is larger than a request; a device file would never end."""

_HEAD_BYTES = 4096
_LINE_END = re.compile(r"\r\n|\r|\n")
_FOREIGN_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_source(file: str) -> str:
    """The text of a file with Python source, or of standard input for "-".

    Raises:
        Failure: It cannot be read, or its bytes are not text in the encoding that it is in; the message names both.
    """
    if file == "-":
        return decode_source(_limited(sys.stdin.buffer, "standard input"), "standard input")
    return decode_source(read_bytes(Path(file)), file)


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        Failure: It cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            return _limited(file, str(path))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(f"cannot read {path} ({reason})") from None


def decode_source(data: bytes, name: str) -> str:
    """Source as text, by its byte-order mark or its coding line (PEP 263), else UTF-8; the mark is left out.

    Args:
        data: The source.
        name: What to call it in messages.

    Raises:
        Failure: See `read_source`.
    """
    foreign = _foreign_encoding(data)
    if foreign:
        raise Failure(f"{name} is {foreign}, which Python does not read: save it as UTF-8")
    encoding, declared = _encoding(data, name)
    try:
        text = data.decode(encoding)
        text.encode()  # some encodings hold lone surrogates, which are no text
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(data[: error.start].decode("latin-1"))) + 1
        told = f"the encoding {encoding} of its coding line" if declared else "UTF-8"
        hint = "" if declared else ", and it has no coding line: save it as UTF-8, or name its encoding (PEP 263)"
        raise Failure(
            f"{name} is not text in {told}: byte 0x{data[error.start]:02x} in line {line} does not belong there{hint}"
        ) from None
    except (LookupError, UnicodeError) as error:
        raise Failure(f"{name} cannot be read in the encoding {encoding} of its coding line: {error}") from None
    return text


def _encoding(data: bytes, name: str) -> tuple[str, bool]:
    """The encoding, and whether a coding line names it."""
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    lines = re.split(rb"\r\n|\r|\n", data[len(mark) : len(mark) + _HEAD_BYTES])[:2]
    # Other letters beside the coding line are in the encoding that it names, which is not known yet.
    head = io.BytesIO(mark + re.sub(rb"[\x80-\xff]", b"?", b"\n".join(lines) + b"\n"))
    try:
        encoding, _ = tokenize.detect_encoding(head.readline)
    except SyntaxError as error:  # the coding line names an unknown encoding, or contradicts the mark
        raise Failure(f"{name}: {error}: Python does not read it") from None
    return encoding, encoding not in ("utf-8", "utf-8-sig")


def _foreign_encoding(data: bytes) -> str:
    for mark, encoding in _FOREIGN_MARKS:
        if data.startswith(mark):
            return encoding
    # ASCII in UTF-16 without a mark: every other byte is null.
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
