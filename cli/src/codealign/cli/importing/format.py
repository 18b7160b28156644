"""Formats: what the columns of a file are, and which records a row becomes.

A format is one module in `formats/`. Roles name what is read ("instruction"); a layout maps them to columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, NamedTuple

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure
from codealign.cli.importing.files import not_installed
from codealign.cli.importing.rows import Row, Unusable


class Node(NamedTuple):
    """A record of a row."""

    body: Message
    parent: int | None
    """Position of its parent among the row's records. None: a root."""


@dataclass(frozen=True)
class Layout:
    """A common layout of files."""

    title: str
    """Whose layout it is, for people."""
    required: Mapping[str, str]
    """Columns by role. The layout is taken if the file has all of them."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Columns that are read if the file has them."""


@dataclass(frozen=True)
class Taken:
    """What is read from a file."""

    columns: Mapping[str, str]
    """Columns by role."""
    title: str
    """Layout that was recognized. Empty: --columns says everything."""


class Format(ABC):
    """A format. Subclass it in a module of `formats/` that defines an instance as FORMAT."""

    name: ClassVar[str]
    description: ClassVar[str]
    """One line for users."""
    VERSION: ClassVar[int]
    """Raise it whenever a row becomes other records."""
    roles: ClassVar[Mapping[str, str]]
    """What can be read from a row, and its meaning."""
    layouts: ClassVar[Sequence[Layout]]
    """Layouts that are recognized, the most specific first."""
    rules: ClassVar[Mapping[str, str]] = {}
    """Filters that drop rows, and their meanings, in the order of application."""

    @abstractmethod
    def needs(self, roles: Collection[str]) -> str:
        """Return which role is missing, for people, or "" if these are enough."""

    @abstractmethod
    def read(self, row: Row, columns: Mapping[str, str], license_id: str) -> Sequence[Node]:
        """Return the records of a row, parents first.

        Args:
            row: The row.
            columns: Columns by role, from `taken`.
            license_id: Licence (SPDX) of rows that state none.

        Raises:
            Unusable: The row cannot be read.
            Dropped: A filter drops it.
        """

    def nested(self, role: str) -> bool:  # noqa: ARG002 (for subclasses)
        """Return whether a role is read from a list of objects. All others are texts, or lists of texts."""
        return False

    def columns(self, given: Mapping[str, str]) -> set[str]:
        """Return the columns that may be read from a file: those that the user maps, and those of all layouts."""
        return {*given.values()}.union(*({*each.required.values(), *each.optional.values()} for each in self.layouts))

    def taken(self, there: Sequence[str], given: Mapping[str, str], further: Sequence[str] = ()) -> Taken:
        """Return what to read from a file with these columns.

        Args:
            there: The file's columns.
            given: Columns by role, as the user maps them. They win over a recognized layout.
            further: Columns that only some later rows have. They are read, but a layout is not recognized by them.

        Raises:
            Failure: The user maps an unknown role.
            Unusable: The columns are not enough.
        """
        for role in given:
            if role not in self.roles:
                raise Failure(f"--columns: format {self.name} reads no {role!r}; it reads: {', '.join(self.roles)}")
        everywhere = [*there, *further]
        missing = [column for column in given.values() if column not in everywhere]
        if missing:
            raise Unusable("no-columns", f"has no column {missing[0]!r}; its columns: {', '.join(there)}", missing[0])
        if given and not self.needs(given):
            return Taken(dict(given), "")
        layout = next((each for each in self.layouts if set(each.required.values()) <= set(there)), None)
        found = dict(layout.required) if layout else {}
        found |= {role: name for role, name in (layout.optional if layout else {}).items() if name in everywhere}
        found |= given
        if wanted := self.needs(found):
            raise Unusable(
                "no-columns",
                f"format {self.name} needs {wanted}; the file's columns are {', '.join(there)}: map them with "
                "--columns role=column,...",
            )
        return Taken(found, layout.title if layout else "")


@cache
def reading_version() -> int:
    """Return the version of the code that reads responses.

    Raises:
        Failure: It is not installed.
    """
    try:
        from codealign.coordinator.reading import imported
    except ImportError:
        raise not_installed() from None
    return imported.VERSION


def response(text: str, tests: str = "", *, python: bool = True) -> pb.Response:
    """Return a published response with its code and tests apart; see `codealign.coordinator.reading.imported`.

    Args:
        text: The response.
        tests: Its tests, if they are published separately.
        python: Whether it is Python. In another language, nothing can be executed.
    """
    if not python:
        return pb.Response(answer=text)
    try:
        from codealign.coordinator.reading import imported
    except ImportError:
        raise not_installed() from None
    parsed = imported.response(text, tests)
    return pb.Response(answer=parsed.answer, code=parsed.code, tests=parsed.tests)


def is_python(language: str) -> bool:
    """Return whether a language's name is Python's, or empty."""
    return language.strip().lower() in ("", "python", "python3", "py")
