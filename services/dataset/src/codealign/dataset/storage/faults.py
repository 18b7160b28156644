"""Translates database errors into the errors that callers get."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from codealign.common.errors import CodeAlignError, Internal, ResourceExhausted, Unavailable

# SQLSTATE classes of PostgreSQL: https://www.postgresql.org/docs/15/errcodes-appendix.html
DISK_FULL = "53100"
SERIALIZATION_FAILURES = frozenset({"40001", "40P01"})
_AWAY_CLASSES = ("08", "53", "57", "58")
_READ_ONLY = "25006"  # a former primary: a reconnect will find the new one

RETRY_AFTER_SECONDS = 1.0
DISK_RETRY_AFTER_SECONDS = 30.0


def is_serialization_failure(error: DBAPIError) -> bool:
    """Return whether PostgreSQL rolled back the transaction in favour of another one, so that it can be repeated."""
    return getattr(error.orig, "sqlstate", None) in SERIALIZATION_FAILURES


def translate(error: SQLAlchemyError | sqlite3.Error, place: str) -> CodeAlignError:
    """Return the error to answer with.

    Args:
        error: The error raised by the driver or SQLAlchemy.
        place: The database, without its password.
    """
    if isinstance(error, PoolTimeoutError):
        return Unavailable(
            f"all connections to {place} are in use; try again, or raise CODEALIGN_DATASET_CONNECTIONS",
            retry_after=RETRY_AFTER_SECONDS,
        )
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _from_sqlite(cause, place)
    if isinstance(error, DBAPIError):
        return _from_postgresql(error, place)
    return Internal(f"{place}: {error}")


def _from_sqlite(error: sqlite3.Error, place: str) -> CodeAlignError:
    # The low byte of an extended code is the primary code: https://www.sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return _disk_full(place, error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"{place} is locked by another process; try again", retry_after=RETRY_AFTER_SECONDS)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Internal(f"{place} is damaged ({error}); stop the service and restore the file from a backup")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return Unavailable(
            f"{place} cannot be read or written ({error}); check that its disk is mounted, writable and not full",
            retry_after=DISK_RETRY_AFTER_SECONDS,
        )
    return Internal(f"{place}: {error}")


def _from_postgresql(error: DBAPIError, place: str) -> CodeAlignError:
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == DISK_FULL:
        return _disk_full(place, error.orig)
    away = state.startswith(_AWAY_CLASSES) or state == _READ_ONLY or error.connection_invalidated
    unreachable = not state and type(error.orig).__name__ in ("OperationalError", "ConnectionTimeout")
    if away or unreachable or state in SERIALIZATION_FAILURES:
        return Unavailable(f"{place} is unavailable: {error.orig}", retry_after=RETRY_AFTER_SECONDS)
    return Internal(f"{place}: {error.orig}")


def _disk_full(place: str, cause: object) -> ResourceExhausted:
    return ResourceExhausted(
        f"the disk of {place} is full ({cause}); nothing was written: free space there, then try again",
        retry_after=DISK_RETRY_AFTER_SECONDS,
    )
