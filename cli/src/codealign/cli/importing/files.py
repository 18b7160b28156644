"""Rows of JSON Lines and Parquet files, streamed: memory does not grow with the file.

JSON Lines may be compressed with gzip or zstd. What cannot be read becomes a `Problem` with its line; the rest is read.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from codealign.cli.failures import Failure
from codealign.cli.importing.rows import Problem, Row, Unusable
from codealign.common.text import encodable

TEXT = (".jsonl", ".ndjson", ".json")
COMPRESSED = (".gz", ".zst", ".zstd")
PARQUET = ".parquet"
SUPPORTED = f"{', '.join(TEXT)} (also with {', '.join(COMPRESSED[:2])}), {PARQUET}"

MAX_ROW_BYTES = 8 * 2**20
"""Maximum size of a line. The store takes no larger record."""
_PARQUET_ROWS = 32
_SEEN = 100
"""Rows of a JSON Lines file of which every column is noted."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LIST_BEGINS = re.compile(rb"\s*\[\s*(?:[\[{]|$)")
_LIST = "is one JSON list: write one object per line (jq -c '.[]' FILE)"
_BROKEN = (OSError, EOFError, zlib.error, ValueError)
"""Errors of a damaged file: those of gzip, and those of pyarrow, which subclass OSError and ValueError."""


def find(path: Path) -> list[Path]:
    """Return the files to import: the file, or every supported one in the directory, in order.

    Raises:
        Failure: There is none, or the file's name has another ending.
    """
    try:
        is_directory, is_file, exists = path.is_dir(), path.is_file(), path.exists()
    except OSError as error:  # a name that is too long, or a directory that may not be entered
        raise Failure(f"cannot read {encodable(str(path))}: {error.strerror or error}") from None
    if is_directory:
        found = sorted(each for each in path.rglob("*") if is_supported(each.name) and _is_file(each))
        if not found:
            raise Failure(f"no file to import in {path}: it has no {SUPPORTED}")
        return found
    if not exists:
        raise Failure(f"no such file or directory: {path}")
    if not is_file:
        raise Failure(f"{path}: is no regular file, and an import reads it several times: write it to a file first")
    if not is_supported(path.name):
        raise Failure(f"{path}: cannot tell its type by its name; files are {SUPPORTED}")
    return [path]


def _is_file(path: Path) -> bool:
    """Return whether a path is a file. What cannot be looked at, or links to nothing, counts: reading tells why."""
    try:
        return path.is_file() or (path.is_symlink() and not path.exists())
    except OSError:
        return True


def is_supported(name: str) -> bool:
    """Return whether a file's name ends as those that can be read."""
    lowered = name.lower()
    for ending in COMPRESSED:
        if lowered.endswith(ending):
            return lowered.removesuffix(ending).endswith(TEXT)
    return lowered.endswith((*TEXT, PARQUET))


def sha256(path: Path) -> str:
    """Return the hash of a file as it is.

    Raises:
        Unusable: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unusable("unreadable-file", f"cannot be read: {error.strerror or error}") from None


class Columns(NamedTuple):
    """Names of a file's columns."""

    first: list[str]
    """Those of Parquet, or of the first rows of JSON Lines."""
    further: list[str]
    """Columns that the first rows lack and others have."""


def columns(path: Path, known: Collection[str] = ()) -> Columns:
    """Return the names of a file's columns.

    JSON Lines may leave a column out of a row, so all rows are looked at. After the first ones only known columns are
    noted, since rows may have any number of others.

    Args:
        path: The file.
        known: Columns that may be read.

    Raises:
        Unusable: The file cannot be read, or has no row.
    """
    if _is_parquet(path):
        with _parquet(path) as file:
            if not file.metadata.num_rows:
                raise Unusable("empty-file", "has no row")
            return Columns(list(file.schema_arrow.names), [])
    first: dict[str, None] = {}
    further: set[str] = set()
    problem: Problem | None = None
    is_empty = True
    for number, row in enumerate(rows(path, path.name)):
        if isinstance(row, Problem):
            problem = problem or row
        elif number < _SEEN or not first:
            first.update(dict.fromkeys(row.fields))
        else:
            further.update(name for name in known if name in row.fields)
        is_empty = False
    if not first and problem is not None:
        raise Unusable(problem.reason, f"no row can be read: {problem.detail} (line {problem.row})")
    if is_empty:
        raise Unusable("empty-file", "has no row")
    return Columns(list(first), sorted(further - first.keys()))


def rows(path: Path, name: str, wanted: Sequence[str] = (), nested: Collection[str] = ()) -> Iterator[Row | Problem]:
    """Yield the rows of a file, and what cannot be read in their place.

    Args:
        path: The file.
        name: Its name in problems and records.
        wanted: Columns to read from Parquet. Empty: all.
        nested: Those among them that may be nested.
    """
    try:
        yield from _parquet_rows(path, name, wanted, nested) if _is_parquet(path) else _text_rows(path, name)
    except Unusable as error:
        yield error.at(name)


def not_installed() -> Failure:
    """Return the failure for a client without the packages that imports need."""
    return Failure("imports need the code that reads responses and Parquet: pip install 'codealign-cli[imports]'")


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise not_installed() from None
    return pyarrow


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET)


def _text_rows(path: Path, name: str) -> Iterator[Row | Problem]:
    number = 0
    try:
        with _opened(path) as stream:
            for number, (line, ended) in enumerate(_lines(stream), 1):
                try:
                    row = _row(line, number, name, ended=ended)
                except Unusable as error:
                    yield error.at(name, number)
                    if error.reason == "unreadable-file":
                        return
                else:
                    if row is not None:
                        yield row
    except _BROKEN as error:
        what = f"{type(error).__name__}: {error}"
        reason = "cut-off" if isinstance(error, EOFError) or "truncated" in str(error).lower() else "unreadable-file"
        yield Problem(name, number + 1, "", reason, f"the file cannot be read from here on ({encodable(what)})")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    lowered = path.name.lower()
    if lowered.endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield cast(IO[bytes], stream)
    elif lowered.endswith((".zst", ".zstd")):
        with path.open("rb") as file, _pyarrow().CompressedInputStream(file, "zstd") as unpacked:
            yield io.BufferedReader(unpacked, 2**16)
    else:
        with path.open("rb") as stream:
            yield stream


def _lines(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, of one that is too long its beginning, and whether a line feed ends it."""
    while line := stream.readline(MAX_ROW_BYTES + 1):
        if line.endswith(b"\n") or len(line) <= MAX_ROW_BYTES:
            yield line, line.endswith(b"\n")
            continue
        while (rest := stream.readline(MAX_ROW_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield line, True


def _row(line: bytes, number: int, name: str, *, ended: bool) -> Row | None:
    """Return the row of a line, or None if the line is blank."""
    is_too_large = len(line) > MAX_ROW_BYTES and not line.endswith(b"\n")
    if number == 1:
        if line.startswith(_UTF16):
            raise Unusable("unreadable-file", "the file is UTF-16: convert it to UTF-8 (iconv -f utf-16 -t utf-8)")
        line = line.removeprefix(b"\xef\xbb\xbf")
        if _LIST_BEGINS.match(line):  # it may end on a later line, or be too large for a row
            raise Unusable("unreadable-file", _LIST)
    if is_too_large:
        raise Unusable("too-large", f"is larger than {MAX_ROW_BYTES // 2**20} MiB")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        if not ended and error.end == len(line) and error.reason == "unexpected end of data":
            raise Unusable("cut-off", "the last line is cut off within a character") from None
        raise Unusable("not-utf8", f"is not UTF-8 at byte {error.start} (0x{line[error.start]:02x})") from None
    if not text.strip():
        return None
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        if not ended:
            raise Unusable("cut-off", f"the last line is cut off at character {error.pos}: {error.msg}") from None
        if number == 1 and text.strip() == "{":
            raise Unusable(
                "unreadable-file", "is one JSON document: write one object per line (jq -c . FILE)"
            ) from None
        raise Unusable("not-json", f"is not JSON at character {error.pos}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits; nested too deeply
        raise Unusable("not-json", f"is not readable JSON: {error}") from None
    if number == 1 and isinstance(fields, list):
        raise Unusable("unreadable-file", _LIST)
    if not isinstance(fields, dict):
        raise Unusable("not-an-object", f"must be an object, is {type(fields).__name__}")
    return Row(name, number, fields)


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        file = _pyarrow().parquet.ParquetFile(path)
    except _BROKEN as error:
        raise Unusable("unreadable-file", f"is not a readable Parquet file: {encodable(str(error))}") from None
    with file:
        yield file


def _parquet_rows(path: Path, name: str, wanted: Sequence[str], nested: Collection[str]) -> Iterator[Row | Problem]:
    with _parquet(path) as file:
        _check_columns(file.schema_arrow, wanted, nested)
        number = 0
        try:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(wanted) or None):
                for fields in _fields(batch):
                    number += 1
                    yield (
                        Row(name, number, fields)
                        if isinstance(fields, dict)
                        else Problem(name, number, "", "not-utf8", fields)
                    )
        except _BROKEN as error:
            raise Unusable("unreadable-file", f"cannot be read after row {number}: {encodable(str(error))}") from None


def _check_columns(schema: Any, wanted: Sequence[str], nested: Collection[str]) -> None:
    types = _pyarrow().types
    for column in wanted:
        if (count := len(schema.get_all_field_indices(column))) > 1:
            raise Unusable("unreadable-file", f"occurs {count} times: rename all but one of these columns", column)
        if column in nested:
            continue
        kind = schema.field(column).type
        inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
        if types.is_nested(inner):
            raise Unusable("not-text", f"is nested ({kind}): map a column of texts, or flatten it", column)


def _fields(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Yield the values of each row, or what is wrong with the row."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield f"is not UTF-8 at byte {error.start} of a text"


def names(path: Path, found: Sequence[Path]) -> list[str]:
    """Return the files' names in records: relative to the imported directory."""
    base = path if path.is_dir() else path.parent
    return [encodable(os.path.relpath(each, base).replace(os.sep, "/")) for each in found]
