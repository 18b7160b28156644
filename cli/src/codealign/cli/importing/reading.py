"""Reading of files: which files, which columns, and the records of their rows."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.failures import Failure
from codealign.cli.importing import files
from codealign.cli.importing.format import Format, Taken
from codealign.cli.importing.records import import_record, row_records
from codealign.cli.importing.rows import Dropped, Problem, Row, Unusable
from codealign.common.text import encodable

_MOST_STEM = 100
"""Characters of a file's name that its collection takes over. The store takes 200 of a collection's name."""


@dataclass(frozen=True)
class Source:
    """A file to import."""

    path: Path
    name: str
    """Its name in records and messages."""


@dataclass(frozen=True)
class Readable:
    """A file whose rows can be read."""

    source: Source
    taken: Taken
    record: pb.Record
    """Its Import record."""


@dataclass
class Tally:
    """What became of the rows that are not imported."""

    problems: Counter[str] = field(default_factory=Counter)
    """Rows and files that could not be read, by reason."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows that a filter of the format dropped, by its name."""


def parse_columns(text: str) -> dict[str, str]:
    """Return columns by role from `role=column,...`.

    Raises:
        Failure: The text is not of this form.
    """
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        role, separator, column = (each.strip() for each in part.partition("="))
        if not separator or not role or not column:
            raise Failure(f"--columns: must be role=column,role=column, is {part!r}")
        if role in found:
            raise Failure(f"--columns: {role!r} is given twice")
        found[role] = column
    return found


def local_sources(path: Path) -> list[Source]:
    """Return the files of a path.

    Raises:
        Failure: There is none.
    """
    found = files.find(path)
    return [Source(each, name) for each, name in zip(found, files.names(path, found), strict=True)]


def readable(
    sources: Sequence[Source],
    form: Format,
    given: Mapping[str, str],
    license_id: str,
    on_problem: Callable[[Problem], None],
) -> list[Readable]:
    """Return the files whose columns fit the format. The others are reported as problems.

    Raises:
        Failure: The user maps an unknown role, or the code that reads responses is not installed.
    """
    found = []
    for source in sources:
        try:
            there = files.columns(source.path, form.columns(given))
            taken = form.taken(there.first, given, there.further)
            size = source.path.stat().st_size
            record = import_record(source.name, files.sha256(source.path), size, form, taken.columns, license_id)
        except Unusable as error:
            on_problem(error.at(source.name))
        except OSError as error:
            on_problem(Problem(source.name, 0, "", "unreadable-file", encodable(str(error))))
        else:
            found.append(Readable(source, taken, record))
    return found


def rows_of(
    file: Readable, form: Format, license_id: str, tally: Tally, on_problem: Callable[[Problem], None]
) -> Iterator[tuple[Row, list[pb.Record]]]:
    """Yield each row with its records, parents first. What cannot be read is reported and counted."""
    wanted = list(dict.fromkeys(file.taken.columns.values()))
    nested = [column for role, column in file.taken.columns.items() if form.nested(role)]
    for row in files.rows(file.source.path, file.source.name, wanted, nested):
        if isinstance(row, Problem):
            on_problem(row)
            continue
        try:
            made = row_records(form.read(row, file.taken.columns, license_id), file.record)
            if large := next((each for each in made if each.ByteSize() > files.MAX_ROW_BYTES), None):
                raise Unusable("too-large", f"becomes a record of {large.ByteSize():,} bytes, too large for the store")
        except Dropped as dropped:
            tally.dropped[dropped.rule] += 1
        except Unusable as error:
            on_problem(error.at(row.file, row.number))
        except Failure:
            raise
        except Exception as error:  # whatever hostile text makes the reading code raise
            text = encodable(f"reading it raised {type(error).__name__}: {error}")[:500]
            on_problem(Problem(row.file, row.number, "", "unreadable-row", text))
        else:
            yield row, made


def collection_name(path: str, imports: Sequence[pb.Record]) -> str:
    """Return a collection name that changes with the files and with how they are read."""
    digest = hashlib.sha256("\n".join(record.id for record in imports).encode()).hexdigest()
    stem = Path(path).name.split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:_MOST_STEM].strip("-")
    return f"{plain or 'import'}-{digest[:8]}"
