"""Pages through a collection for people: newest first, filtered by group, category and text."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.records import body
from codealign.common.sequences import batched
from codealign.dataset.storage.bulk import is_sqlite, select_in
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.rows import load_within
from codealign.dataset.storage.schema import collection_entries, tallies

MOST_EXAMINED = 4000
"""Records that one call compares with a text or a category, so that a rare text does not make it slow."""
_CHUNK = 200
_BATCH = 10

Position = tuple[int, str]
"""When a record became a member, and its id."""

FIRST: Position = (2**62, "")
"""The start: above every position."""

CATEGORIZED = frozenset({pb.KIND_INSTRUCTION, pb.KIND_EXAMPLE})
"""Kinds that have a category."""


class _Group(NamedTuple):
    """What Count groups a kind's records by."""

    label: str
    rejected_kind: int
    outcome: int
    stage_config_id: str


@dataclass(frozen=True)
class View:
    """Selects a collection's records of one kind. Empty fields do not restrict."""

    collection: str
    kind: int
    labels: tuple[str, ...] = ()
    stage_config_id: str = ""
    rejected_kind: int = 0
    outcome: int = 0
    category: str = ""
    text: str = ""


@dataclass(frozen=True)
class Newest:
    """A page of records, newest first."""

    records: list[pb.Record]
    examined: int
    next: Position | None
    """Where the next page begins. None: this is the last page."""


def browse(
    database: Database, view: View, *, before: Position = FIRST, limit: int = 50, max_bytes: int = 2**22
) -> Newest:
    """Return a page. Its cost does not depend on the size of the collection.

    Args:
        database: The store of records.
        view: Selects the records.
        before: The previous page's `next`.
        limit: Maximum number of records.
        max_bytes: The page ends before it exceeds this size.
    """

    def work(connection: Connection) -> Newest:
        compared = bool(view.text or view.category)
        found: list[Position] = []
        last: Position | None = None
        examined, more = 0, False
        entries = _entries(connection, view, before, _CHUNK if compared else limit + 1)
        for some in batched(entries, _CHUNK if compared else limit + 1):
            matching = _matching(connection, view, [key for _, key in some]) if compared else None
            for position in some:
                if len(found) == limit:
                    more = True
                    break
                last = position
                examined += compared
                if matching is None or position[1] in matching:
                    found.append(position)
            if more or examined >= MOST_EXAMINED:
                more = True
                break
        page = load_within(connection, [key for _, key in found], max_bytes, _BATCH)
        if len(page) < len(found):
            return Newest(_exactly(view, page), examined, found[len(page) - 1])
        return Newest(_exactly(view, page), examined, last if more else None)

    return database.read(work, snapshot=True)


def _entries(connection: Connection, view: View, before: Position, chunk: int) -> Iterator[Position]:
    """Yield the members of all groups that match, newest first."""
    groups = [_group(connection, view, group, before, chunk) for group in _groups(connection, view)]
    return heapq.merge(*groups, reverse=True)


def _groups(connection: Connection, view: View) -> Sequence[_Group]:
    statement = select(tallies.c.label, tallies.c.rejected_kind, tallies.c.outcome, tallies.c.stage_config_id).where(
        tallies.c.collection == view.collection, tallies.c.kind == view.kind
    )
    if view.labels:
        statement = statement.where(tallies.c.label.in_(view.labels))
    for column, value in (
        (tallies.c.stage_config_id, view.stage_config_id),
        (tallies.c.rejected_kind, view.rejected_kind),
        (tallies.c.outcome, view.outcome),
    ):
        if value:
            statement = statement.where(column == value)
    return [_Group(*row) for row in connection.execute(statement)]


def _group(connection: Connection, view: View, group: _Group, before: Position, chunk: int) -> Iterator[Position]:
    entries = collection_entries
    while True:
        statement = (
            select(entries.c.entered, entries.c.record_id)
            .where(
                entries.c.collection == view.collection,
                entries.c.kind == view.kind,
                entries.c.label == group.label,
                entries.c.rejected_kind == group.rejected_kind,
                entries.c.outcome == group.outcome,
                entries.c.stage_config_id == group.stage_config_id,
                tuple_(entries.c.entered, entries.c.record_id) < tuple_(*before),
            )
            .order_by(entries.c.entered.desc(), entries.c.record_id.desc())
            .limit(chunk)
        )
        page = connection.execute(statement).all()
        for row in page:
            yield row.entered, row.record_id
        if len(page) < chunk:
            return
        before = page[-1].entered, page[-1].record_id


def _matching(connection: Connection, view: View, ids: Sequence[str]) -> set[str]:
    """Return those of the records that contain the text and the category.

    The database compares, so that bodies of megabytes are not read into the service.
    """
    sqlite = is_sqlite(connection)
    conditions, values = [], []
    if view.text:
        # PostgreSQL's text cannot hold the zero bytes of a serialized message, hence its encoding "escape".
        conditions.append(
            "instr(lower(CAST(body AS TEXT)), lower({value})) > 0"
            if sqlite
            else "position(lower(encode({value}::bytea, 'escape')) in lower(encode(body, 'escape'))) > 0"
        )
        values.append(view.text if sqlite else view.text.encode())
    if view.category:
        conditions.append("instr(body, {value}) > 0" if sqlite else "position({value}::bytea in body) > 0")
        values.append(_serialized_category(view))
    statement = f"SELECT id FROM records WHERE {' AND '.join(conditions)} AND id {{in_keys}}"  # noqa: S608 - no value is in it
    return {row[0] for some in batched(ids, _CHUNK) for row in select_in(connection, statement, some, *values)}


def _serialized_category(view: View) -> bytes:
    message = pb.Instruction(category=view.category) if view.kind == pb.KIND_INSTRUCTION else None
    return (message or pb.Example(category=view.category)).SerializeToString()


def _exactly(view: View, page: list[pb.Record]) -> list[pb.Record]:
    """Leave out records that only look as if they matched.

    A text may look like the serialized category. PostgreSQL's encoding writes bytes above 127 as octal digits.
    """
    text = view.text.encode().lower()
    found = []
    for record in page:
        message = body(record)
        if view.category and getattr(message, "category", "") != view.category:
            continue
        if text and (message is None or text not in message.SerializeToString().lower()):
            continue
        found.append(record)
    return found
