"""Which versions were published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from codealign.common.errors import NotFound
from codealign.dataset.storage.database import Database, insert, now
from codealign.dataset.storage.schema import versions


@dataclass(frozen=True)
class VersionFile:
    """One file of a version, as its manifest has it."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class PublishedVersion:
    """A version's entry."""

    name: str
    title: str
    collection: str
    rows: int
    files: tuple[VersionFile, ...]
    created_at: float = 0.0
    """Seconds since 1970; kept here alone, never in the version's files."""


def add(database: Database, version: PublishedVersion) -> PublishedVersion:
    """Enter a version; where it is entered already, that entry stays and is given back."""

    def work(connection: Connection) -> PublishedVersion:
        row = {
            "name": version.name,
            "title": version.title,
            "collection": version.collection,
            "rows": version.rows,
            "files": json.dumps([vars(file) for file in version.files]),
            "created_at": now(connection),
        }
        connection.execute(insert(connection, versions).on_conflict_do_nothing(), [row])
        return _version(connection.execute(select(versions).where(versions.c.name == version.name)).one())

    return database.write(work)


def get(database: Database, name: str) -> PublishedVersion:
    """A version by its name.

    Raises:
        NotFound: There is none of this name.
    """
    statement = select(versions).where(versions.c.name == name)
    row = database.read(lambda connection: connection.execute(statement).one_or_none())
    if row is None:
        raise NotFound(f"there is no version {name}; ListVersions names those that there are")
    return _version(row)


def all_versions(database: Database) -> list[PublishedVersion]:
    """Every version, newest first."""
    statement = select(versions).order_by(versions.c.created_at.desc(), versions.c.name)
    return database.read(lambda connection: [_version(row) for row in connection.execute(statement)])


def _version(row: Row[Any]) -> PublishedVersion:
    files = tuple(VersionFile(**item) for item in json.loads(row.files))
    return PublishedVersion(row.name, row.title, row.collection, row.rows, files, row.created_at)
