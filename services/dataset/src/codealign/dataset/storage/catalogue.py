"""Catalogue of published versions."""

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
    """A file of a version, as listed in its manifest."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class PublishedVersion:
    """Catalogue entry of a version."""

    name: str
    title: str
    collection: str
    rows: int
    files: tuple[VersionFile, ...]
    created_at: float = 0.0
    """Seconds since 1970. Stored only here, never in the version's files."""


def add(database: Database, version: PublishedVersion) -> PublishedVersion:
    """Enter a version and return its entry. An existing entry is kept."""

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
    """Return a version by name.

    Raises:
        NotFound: The version does not exist.
    """
    statement = select(versions).where(versions.c.name == name)
    row = database.read(lambda connection: connection.execute(statement).one_or_none())
    if row is None:
        raise NotFound(f"version {name} does not exist; `codealign data versions` (ListVersions) lists all")
    return _version(row)


def all_versions(database: Database) -> list[PublishedVersion]:
    """Return every version, newest first."""
    statement = select(versions).order_by(versions.c.created_at.desc(), versions.c.name)
    return database.read(lambda connection: [_version(row) for row in connection.execute(statement)])


def _version(row: Row[Any]) -> PublishedVersion:
    files = tuple(VersionFile(**item) for item in json.loads(row.files))
    return PublishedVersion(row.name, row.title, row.collection, row.rows, files, row.created_at)
