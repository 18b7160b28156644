"""One way to a database, SQLite or PostgreSQL: transactions as functions, and errors as ours."""

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
from codealign.dataset.storage.faults import is_serialization_failure, translate

T = TypeVar("T")

BUSY_SECONDS = 10.0
CONNECT_SECONDS = 5
TRIES = 4
# SQLite's page cache for each connection. The writer's holds the inner pages of the indexes that appends touch.
READING_CACHE_KIB = 16 * 1024
WRITING_CACHE_KIB = 64 * 1024


def parse_url(text: str) -> URL:
    """Read a database URL and fill in the driver.

    Raises:
        ConfigurationError: It is no URL, or another database's.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise ConfigurationError(
            "database_url is no URL: sqlite:///<file> or postgresql://<user>@<host>/<db>"
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
    """An engine, and how transactions are run on it. Safe to use from several threads.

    Args:
        url: `sqlite:///…` or `postgresql://…`.
        connections: At most so many at a time.
    """

    def __init__(self, url: str, *, connections: int = 9) -> None:
        parsed = parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.place = f"{parsed.database}" if self.is_sqlite else parsed.render_as_string(hide_password=True)
        # SQLite has one writer at a time; waiting here is fair, while its own busy handler polls.
        self._write_lock = threading.Lock()
        self.engine: Engine
        self.writing_engine: Engine
        """SQLite's one writer has a connection of its own, with a large cache; else the same engine."""
        if self.is_sqlite:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            self.engine = _sqlite_engine(parsed, connections, READING_CACHE_KIB, "BEGIN")
            # A transaction that reads first and writes later could not be upgraded once another has written.
            self.writing_engine = _sqlite_engine(parsed, 1, WRITING_CACHE_KIB, "BEGIN IMMEDIATE")
        else:
            self.engine = create_engine(
                parsed.update_query_dict({"connect_timeout": str(CONNECT_SECONDS), **dict(parsed.query)}),
                pool_size=connections,
                max_overflow=0,
                pool_pre_ping=True,  # after a restart of the database the first call works
                connect_args={"application_name": "codealign-dataset"},
            )
            event.listen(self.engine, "connect", _set_up_postgresql)
            self.writing_engine = self.engine

    def read(self, work: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Run `work` in a transaction that changes nothing.

        Args:
            work: Gets the connection.
            snapshot: All its statements see one state. SQLite always does so.

        Raises:
            Unavailable: The database is away.
        """
        try:
            with self.engine.connect() as connection:
                if snapshot and not self.is_sqlite:
                    connection = connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    return work(connection)
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise translate(error, self.place) from error

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction: all of it or nothing. It may be run again after a deadlock.

        Raises:
            Unavailable: The database is away.
            ResourceExhausted: Its disk is full.
        """
        for _ in range(TRIES):
            try:
                with self._write_lock if self.is_sqlite else contextlib.nullcontext():
                    with self.writing_engine.begin() as connection:
                        return work(connection)
            except DBAPIError as error:
                if not is_serialization_failure(error):
                    raise translate(error, self.place) from error
            except (SQLAlchemyError, sqlite3.Error) as error:
                raise translate(error, self.place) from error
        raise Unavailable(f"{self.place}: too many transactions at once touch the same rows; try again")

    def ping(self) -> None:
        """Raises the error that a call would meet now."""
        self.read(lambda connection: connection.execute(select(1)))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        self.writing_engine.dispose()


def now(connection: Connection) -> float:
    """Seconds since 1970 by the database's clock, so that all replicas of the service go by one."""
    if connection.dialect.name == "sqlite":
        expression: Any = literal_column("(julianday('now') - 2440587.5) * 86400.0")
    else:
        expression = func.extract("epoch", func.clock_timestamp())
    return float(connection.execute(select(expression)).scalar_one())


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _sqlite_engine(url: URL, connections: int, cache_kib: int, begin: str) -> Engine:
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        # None: the driver leaves BEGIN to us, which it would otherwise delay until the first write.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        # A record that was acknowledged survives a power cut as well as a kill.
        connection.execute("PRAGMA synchronous = FULL")
        # Checkpoints of 40 MB: index pages that many appends touch are then written back once.
        connection.execute("PRAGMA wal_autocheckpoint = 10000")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        connection.execute("PRAGMA temp_store = MEMORY")

    # Last in, first out: a few connections and their caches do the work, and not all in turn.
    engine = create_engine(
        url, pool_size=connections, max_overflow=0, pool_use_lifo=True, connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _set_up_postgresql(connection: psycopg.Connection, _record: object) -> None:
    # Statements are prepared once and live long. A plan that was made while a table was nearly empty would walk the
    # whole of it when it has grown; a plan for each execution costs a fraction of a millisecond.
    connection.execute("SET plan_cache_mode = force_custom_plan")
    connection.commit()
