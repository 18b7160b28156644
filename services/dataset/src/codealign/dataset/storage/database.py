"""Common interface to SQLite and PostgreSQL: transactions as functions, and errors as CodeAlign's."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, literal_column, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.sql.schema import Table

from codealign.common.errors import ConfigurationError, Unavailable
from codealign.dataset.metrics import DATABASE_SECONDS
from codealign.dataset.storage.faults import is_serialization_failure, translate

T = TypeVar("T")

BUSY_SECONDS = 10.0
CONNECT_SECONDS = 5
TRIES = 4
# SQLite's page cache for each connection. The writer's holds the inner index pages that appends use.
READING_CACHE_KIB = 16 * 1024
WRITING_CACHE_KIB = 64 * 1024


def parse_url(text: str) -> URL:
    """Parse a database URL and fill in the driver.

    Raises:
        ConfigurationError: It is not a URL, or that of an unsupported database.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise ConfigurationError(
            "database_url is not valid; use sqlite:///<file> or postgresql://<user>@<host>/<db>"
        ) from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigurationError("database_url: an SQLite database needs a file, as in sqlite:////data/records.db")
        return url.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise ConfigurationError(f"database_url: {backend} is not supported; use sqlite:///<file> or postgresql://…")


class Database:
    """A database engine that runs transactions. Thread-safe.

    Args:
        url: `sqlite:///…` or `postgresql://…`.
        connections: Maximum number of connections.
    """

    def __init__(self, url: str, *, connections: int = 9) -> None:
        parsed = parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.place = f"{parsed.database}" if self.is_sqlite else parsed.render_as_string(hide_password=True)
        # SQLite has one writer at a time. Waiting for this lock is fair, while SQLite's own busy handler polls.
        self._write_lock = threading.Lock()
        self.engine: Engine
        self.writing_engine: Engine
        """SQLite's writer has a separate connection with a large cache. Otherwise the same engine."""
        if self.is_sqlite:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            self.engine = _sqlite_engine(parsed, connections, READING_CACHE_KIB, "BEGIN")
            # A transaction that reads first could not be upgraded to write once another one has written.
            self.writing_engine = _sqlite_engine(parsed, 1, WRITING_CACHE_KIB, "BEGIN IMMEDIATE")
        else:
            self.engine = create_engine(
                parsed.update_query_dict({"connect_timeout": str(CONNECT_SECONDS), **dict(parsed.query)}),
                pool_size=connections,
                max_overflow=0,
                pool_pre_ping=True,  # the first call after a restart of the database succeeds
                connect_args={"application_name": "codealign-dataset"},
            )
            event.listen(self.engine, "connect", _set_up_postgresql)
            self.writing_engine = self.engine

    def read(self, work: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Run `work` in a read-only transaction.

        Args:
            work: Called with the connection.
            snapshot: Whether all its statements see the same state. SQLite always does this.

        Raises:
            Unavailable: The database is unavailable.
        """
        try:
            with DATABASE_SECONDS.labels("read").time(), self.engine.connect() as connection:
                if snapshot and not self.is_sqlite:
                    connection = connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    return work(connection)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise translate(error, self.place) from error

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction: all of it or nothing. It may run again after a deadlock.

        Raises:
            Unavailable: The database is unavailable.
            ResourceExhausted: Its disk is full.
        """
        for _ in range(TRIES):
            try:
                with (
                    DATABASE_SECONDS.labels("write").time(),
                    self._write_lock if self.is_sqlite else contextlib.nullcontext(),
                    self.writing_engine.begin() as connection,
                ):
                    return work(connection)
            except DBAPIError as error:
                if not is_serialization_failure(error):
                    raise translate(error, self.place) from error
            except (SQLAlchemyError, sqlite3.Error) as error:
                raise translate(error, self.place) from error
        raise Unavailable(f"{self.place}: too many concurrent transactions write the same rows; try again")

    def ping(self) -> None:
        """Raise the error that a call would get now, if any."""
        self.read(lambda connection: connection.execute(select(1)))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        self.writing_engine.dispose()


def now(connection: Connection) -> float:
    """Return the time of the database in seconds since 1970: one clock for all replicas of the service."""
    if connection.dialect.name == "sqlite":
        expression: Any = literal_column("(julianday('now') - 2440587.5) * 86400.0")
    else:
        expression = func.extract("epoch", func.clock_timestamp())
    return float(connection.execute(select(expression)).scalar_one())


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that supports `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _sqlite_engine(url: URL, connections: int, cache_kib: int, begin: str) -> Engine:
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        # None: otherwise the driver would delay BEGIN until the first write.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged record survives a power cut as well as a killed process.
        connection.execute("PRAGMA synchronous = FULL")
        # Checkpoint every 40 MB, so that index pages written by many appends are written back only once.
        connection.execute("PRAGMA wal_autocheckpoint = 10000")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        connection.execute("PRAGMA temp_store = MEMORY")

    # Last in, first out: use a few connections with their caches rather than all in turn.
    engine = create_engine(
        url, pool_size=connections, max_overflow=0, pool_use_lifo=True, connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _set_up_postgresql(connection: psycopg.Connection, _record: object) -> None:
    # Prepared statements live long. A plan made while a table was nearly empty would scan the whole table once it has
    # grown. Planning each execution costs a fraction of a millisecond.
    connection.execute("SET plan_cache_mode = force_custom_plan")
    connection.commit()
