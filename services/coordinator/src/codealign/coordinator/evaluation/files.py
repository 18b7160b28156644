"""Benchmark files: JSON Lines, plain or gzipped, one problem per line."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codealign.common.errors import FailedPrecondition
from codealign.common.text import encodable

SUFFIXES = (".jsonl", ".jsonl.gz")
_SHOWN_CHARS = 100


@dataclass(frozen=True)
class Row:
    """A line of a file."""

    file: str
    line: int
    fields: dict[str, Any]

    def fault(self, field: str, what: str) -> FailedPrecondition:
        """Return an error that names this line and a field."""
        return FailedPrecondition(f"benchmark file {self.file}, line {self.line}, field {field!r}: {what}")

    def text(self, field: str) -> str:
        """Return a string field.

        Raises:
            FailedPrecondition: The field is missing, not a string, or not encodable.
        """
        value = self._there(field)
        if not isinstance(value, str):
            raise self.fault(field, f"must be a string, is {type(value).__name__}")
        if encodable(value) != value:
            raise self.fault(field, "contains half of a surrogate pair (\\ud800 to \\udfff), which is not text")
        return value

    def number(self, field: str) -> float:
        """Return a field that must be a finite non-negative number."""
        value = self._there(field)
        # Whole numbers of JSON have no limit: the largest ones are no floats.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= sys.float_info.max:
            raise self.fault(field, f"must be a finite non-negative number, is {str(value)[:_SHOWN_CHARS]}")
        return float(value)

    def calls(self, field: str) -> list[list[Any]]:
        """Return a field that must be a list of argument lists."""
        value = self._there(field)
        if value == {}:  # MBPP+ 0.2.0 encodes "no inputs" as {}
            return []
        if not isinstance(value, list):
            raise self.fault(field, f"must be a list of argument lists, is {type(value).__name__}")
        for number, item in enumerate(value):
            if not isinstance(item, list):
                raise self.fault(f"{field}[{number}]", f"must be a list of arguments, is {type(item).__name__}")
        return value

    def _there(self, field: str) -> Any:
        if field not in self.fields:
            raise self.fault(field, "is missing")
        return self.fields[field]


def folder_files(path: Path) -> list[Path]:
    """Return the benchmark files of a directory, sorted by name, or the file itself.

    Raises:
        FailedPrecondition: The path does not exist, or the directory has no benchmark file.
    """
    if not path.exists():
        raise FailedPrecondition(f"evaluation_data: {path} does not exist; set it to a .jsonl(.gz) file or a directory")
    found = sorted(each for each in path.iterdir() if each.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    if not found:
        raise FailedPrecondition(f"evaluation_data: no .jsonl or .jsonl.gz file in {path}")
    return found


def rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, skipping blank lines.

    Raises:
        FailedPrecondition: A line cannot be read; the message names the file and the line.
    """
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(path, number, line)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise FailedPrecondition(
            f"benchmark file {path}, after line {number}: cannot be read ({error}); download it again"
        ) from None


def _row(path: Path, number: int, line: str) -> Row:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FailedPrecondition(f"benchmark file {path}, line {number}: invalid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise FailedPrecondition(f"benchmark file {path}, line {number}: must be a JSON object with a problem's fields")
    return Row(str(path), number, fields)
