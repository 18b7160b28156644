"""A row of an imported file, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REASONS: Mapping[str, str] = {
    "unreadable-file": "the file cannot be read",
    "empty-file": "the file has no row",
    "no-columns": "the file lacks the format's columns",
    "not-utf8": "the row is not UTF-8",
    "not-json": "the line is not JSON",
    "cut-off": "the last line, or the file, ends too early",
    "not-an-object": "the row is not an object",
    "missing": "a column is missing",
    "null": "a value is null",
    "empty": "a text is empty",
    "not-text": "a value is not text",
    "surrogate": "a text has a lone surrogate, which UTF-8 cannot encode",
    "too-large": "the row is larger than the store accepts",
    "unreadable-row": "reading the row raised an exception",
}
"""What can be wrong with a file or a row."""


@dataclass(frozen=True)
class Problem:
    """A file or a row that cannot be imported."""

    file: str
    row: int
    """Line or row, from 1. 0: the whole file."""
    field: str
    """Column. Empty: the whole row."""
    reason: str
    """One of `REASONS`."""
    detail: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.row}" if self.row else self.file
        return f"{place}: {f'{self.field}: ' if self.field else ''}{self.detail}"


class Unusable(Exception):
    """A row, or a whole file, cannot be imported.

    Args:
        reason: One of `REASONS`.
        detail: What is wrong, for people.
        field: The column, or "".
    """

    def __init__(self, reason: str, detail: str, field: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail, self.field = reason, detail, field

    def at(self, file: str, row: int = 0) -> Problem:
        """Return the problem with its place."""
        return Problem(file, row, self.field, self.reason, self.detail)


class Dropped(Exception):
    """A filter of the format drops a row.

    Args:
        rule: Name of the filter.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


@dataclass(frozen=True)
class Row:
    """A row of a file. Its values are whatever the file has."""

    file: str
    number: int
    """Line or row, from 1."""
    fields: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Return a text.

        Raises:
            Unusable: It is missing, null, empty, not text, or not encodable.
        """
        text = self._text(column)
        if not text.strip():
            raise Unusable("empty", "is empty", column)
        return text

    def optional(self, column: str) -> str:
        """Return a text, or "" if the file has none in this row.

        Raises:
            Unusable: It is not text, or not encodable.
        """
        return self._text(column) if self.fields.get(column) is not None else ""

    def texts(self, column: str) -> list[str]:
        """Return a list of texts; a single text counts as a list separated by commas. Empty if the row has none.

        Raises:
            Unusable: It is neither, or a text is not encodable.
        """
        value = self.fields.get(column)
        if value is None:
            return []
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
            raise Unusable("not-text", f"must be a list of texts, is {_kind(value)}", column)
        return [each.strip() for each in (_encodable(column, each) for each in value) if each.strip()]

    def _text(self, column: str) -> str:
        if column not in self.fields:
            raise Unusable("missing", "is missing", column)
        value = self.fields[column]
        if value is None:
            raise Unusable("null", "is null", column)
        if not isinstance(value, str):
            raise Unusable("not-text", f"must be text, is {_kind(value)}", column)
        return _encodable(column, value)


def _encodable(column: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(
            "surrogate", f"has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}", column
        ) from None
    return text


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence):
        return "a list"
    return f"a {type(value).__name__}"
