"""The size of the database, from what it keeps anyway: no table is counted."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from codealign.dataset.storage.database import Database
from codealign.dataset.storage.schema import metadata, records, tallies, versions


@dataclass(frozen=True)
class Size:
    """Rows by table, and bytes."""

    rows: dict[str, int]
    size_bytes: int


def measure(database: Database) -> Size:
    """Return the database's size: PostgreSQL's estimates, or SQLite's tallies and the size of its pages.

    Raises:
        Unavailable: The database is unavailable.
    """
    return database.read(_of_sqlite if database.is_sqlite else _of_postgresql)


def _of_postgresql(connection: Connection) -> Size:
    live = text("SELECT relname, n_live_tup FROM pg_stat_user_tables WHERE schemaname = current_schema()")
    found = {str(name): int(rows) for name, rows in connection.execute(live)}
    size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    return Size({name: found[name] for name in metadata.tables if name in found}, int(size))


def _of_sqlite(connection: Connection) -> Size:
    """Read SQLite's size. Only tables with few rows and those that the tallies count can be measured cheaply."""
    stored = select(func.coalesce(func.sum(tallies.c.records), 0)).where(tallies.c.collection == "")
    members = select(func.coalesce(func.sum(tallies.c.records), 0)).where(tallies.c.collection != "")
    published = select(func.count()).select_from(versions)
    rows = {
        records.name: int(connection.execute(stored).scalar_one()),
        "collection_members": int(connection.execute(members).scalar_one()),
        versions.name: int(connection.execute(published).scalar_one()),
    }
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    page_bytes = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return Size(rows, int(pages) * int(page_bytes))
