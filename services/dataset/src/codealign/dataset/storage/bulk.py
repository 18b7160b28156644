"""Bulk statements for SQLite and PostgreSQL, in which appends and look-ups spend their time.

The text of a statement depends only on its table, not on the number of rows, so it is prepared once. SQLAlchemy's own
expansion of lists would build and compile a text for each length.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Double, Integer, LargeBinary, SmallInteger, Table

Values = Sequence[tuple[Any, ...]]

_POSTGRESQL_TYPES = (
    (BigInteger, "bigint"),  # before Integer, its base class
    (SmallInteger, "smallint"),
    (Integer, "integer"),
    (Double, "double precision"),
    (LargeBinary, "bytea"),
)


def is_sqlite(connection: Connection) -> bool:
    """Return whether the connection is to SQLite rather than PostgreSQL."""
    return connection.dialect.name == "sqlite"


def select_in(connection: Connection, statement: str, keys: Sequence[str], *first: object) -> Sequence[Any]:
    """Return the rows of a SELECT that ends in a condition on a list.

    Args:
        connection: The connection.
        statement: The SELECT, with `{in_keys}` in place of the list ("... WHERE id {in_keys}") and `{value}` for each
            value before it.
        keys: The list.
        first: The values before it.
    """
    if not keys:
        return ()
    sqlite = is_sqlite(connection)
    return connection.exec_driver_sql(
        _with_list(statement, sqlite), (*first, json.dumps(keys) if sqlite else list(keys))
    ).fetchall()


@functools.lru_cache(maxsize=64)
def _with_list(statement: str, sqlite: bool) -> str:
    in_keys = "IN (SELECT value FROM json_each(?))" if sqlite else "= ANY(%b::text[])"
    return statement.replace("{in_keys}", in_keys).replace("{value}", "?" if sqlite else "%b")


def insert(connection: Connection, table: Table, rows: Values) -> None:
    """Insert new rows; each has the table's columns in their order."""
    if rows:
        _execute(connection, _inserting(table, is_sqlite(connection)), rows)


def insert_if_new(connection: Connection, table: Table, rows: Values, key: str) -> set[str]:
    """Insert rows that the caller did not find, unless another transaction has inserted them in the meantime.

    Args:
        connection: The connection.
        table: The table.
        rows: As for `insert`.
        key: A column that identifies the rows.

    Returns:
        The values of `key` in the rows that were inserted.
    """
    if not rows:
        return set()
    if is_sqlite(connection):  # nobody else can have written since the caller looked
        insert(connection, table, rows)
        position = list(table.columns.keys()).index(key)
        return {row[position] for row in rows}
    statement = f"{_inserting(table, sqlite=False)} ON CONFLICT DO NOTHING RETURNING {key}"
    return set(connection.exec_driver_sql(statement, _arrays(rows)).scalars())


def add_up(connection: Connection, table: Table, rows: Values) -> None:
    """Insert rows. If a row with the same primary key exists, add the other columns to its values."""
    if rows:
        _execute(connection, _adding(table, is_sqlite(connection)), rows)


def _execute(connection: Connection, statement: str, rows: Values) -> None:
    connection.exec_driver_sql(statement, list(rows) if is_sqlite(connection) else _arrays(rows))


def _arrays(rows: Values) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


@functools.lru_cache(maxsize=16)
def _inserting(table: Table, sqlite: bool) -> str:
    names = ", ".join(column.name for column in table.columns)
    if sqlite:
        return f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' for _ in table.columns)})"  # noqa: S608 - no value is in it
    arrays = ", ".join(f"%b::{_type(column)}[]" for column in table.columns)
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608 - no value is in it


@functools.lru_cache(maxsize=16)
def _adding(table: Table, sqlite: bool) -> str:
    keys = ", ".join(column.name for column in table.primary_key.columns)
    sums = ", ".join(
        f"{column.name} = {table.name}.{column.name} + excluded.{column.name}"
        for column in table.columns
        if not column.primary_key
    )
    return f"{_inserting(table, sqlite)} ON CONFLICT ({keys}) DO UPDATE SET {sums}"


def _type(column: Column[Any]) -> str:
    return next((name for kind, name in _POSTGRESQL_TYPES if isinstance(column.type, kind)), "text")
