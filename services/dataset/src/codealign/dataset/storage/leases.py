"""Leases: one holder at a time does a piece of work, and a holder that lost its lease is fenced off.

Expiry is measured by the database's clock, which all replicas of the service share. The token increases with every
new holder and is never reused. Each append carries it, and is refused once a later token was issued.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update

from codealign.common.errors import FailedPrecondition, NotFound, Unavailable
from codealign.dataset.storage.database import Database, insert, now
from codealign.dataset.storage.schema import leases


@dataclass(frozen=True)
class Fence:
    """A lease's name and the token of its holder."""

    name: str
    token: int


@dataclass(frozen=True)
class Lease:
    """A lease that is held."""

    name: str
    holder: str
    token: int
    expires_at: float
    """Seconds since 1970, by the database's clock."""


def acquire(database: Database, name: str, holder: str, ttl: float) -> Lease:
    """Acquire a lease, or acquire it again with a new token.

    Args:
        database: The store of leases.
        name: Name of the lease.
        holder: Name of the holder.
        ttl: Seconds until it expires.

    Raises:
        Unavailable: Another holder has it; includes the seconds until it expires.
    """

    def work(connection: Connection) -> Lease:
        # Ensures that two holders that ask first lock the same row.
        empty = {"name": name, "holder": "", "token": 0, "expires_at": 0.0}
        connection.execute(insert(connection, leases).on_conflict_do_nothing(), [empty])
        row = _locked(connection, name)
        time = now(connection)
        if row.holder != holder and row.expires_at > time:
            left = row.expires_at - time
            raise Unavailable(f"lease {name} is held by {row.holder} for another {left:.1f} s", retry_after=left)
        return _hold(connection, name, holder, row.token + 1, time + ttl)

    return database.write(work)


def renew(database: Database, fence: Fence, ttl: float) -> Lease:
    """Extend a lease to `ttl` seconds from now. The token stays the same.

    Raises:
        NotFound: The lease does not exist.
        FailedPrecondition: It expired, or another holder has it.
    """

    def work(connection: Connection) -> Lease:
        row, time = _held(connection, fence, renewal=True)
        return _hold(connection, fence.name, row.holder, fence.token, time + ttl)

    return database.write(work)


def release(database: Database, fence: Fence) -> None:
    """Release a lease. Does nothing if it is no longer held with this token.

    Raises:
        NotFound: The lease does not exist.
    """

    def work(connection: Connection) -> None:
        row = _locked(connection, fence.name)
        if row.token == fence.token:
            _hold(connection, fence.name, "", fence.token, 0.0)

    database.write(work)


def require_held(connection: Connection, fence: Fence) -> None:
    """Ensure, within a transaction, that the lease is held with this token and stays held until the commit.

    Raises:
        NotFound: The lease does not exist.
        FailedPrecondition: It expired, or another holder has it.
    """
    _held(connection, fence, renewal=False)


def _held(connection: Connection, fence: Fence, *, renewal: bool) -> tuple[Row[Any], float]:
    # In PostgreSQL, FOR KEY SHARE of an append blocks a new holder (FOR UPDATE) until its commit, but not a renewal
    # (FOR NO KEY UPDATE), which a stream of appends could otherwise starve until the lease is lost.
    row = _locked(connection, fence.name, key_share=True, read=not renewal)
    time = now(connection)
    if row.token != fence.token:
        state = f"{row.holder} has it" if row.expires_at > time else "another holder has had it since"
        raise FailedPrecondition(
            f"lease {fence.name} is not held with token {fence.token}: {state} (token {row.token}); stop this work"
        )
    if row.expires_at <= time:
        raise FailedPrecondition(f"lease {fence.name} (token {fence.token}) has expired: acquire it again first")
    return row, time


def _locked(connection: Connection, name: str, *, key_share: bool = False, read: bool = False) -> Row[Any]:
    # SQLite has no row locks: its single writer locks the whole database.
    statement = select(leases).where(leases.c.name == name).with_for_update(key_share=key_share, read=read)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFound(f"lease {name} does not exist: acquire it first")
    return row


def _hold(connection: Connection, name: str, holder: str, token: int, expires_at: float) -> Lease:
    values = {"holder": holder, "token": token, "expires_at": expires_at}
    connection.execute(update(leases).where(leases.c.name == name).values(values))
    return Lease(name, holder, token, expires_at)
