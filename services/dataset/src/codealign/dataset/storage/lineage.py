"""Traces a record back to its seeds and forward to its descendants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import NotFound
from codealign.common.sequences import batched
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.lookup import resolve
from codealign.dataset.storage.rows import CHUNK, load, load_within
from codealign.dataset.storage.schema import collection_members as members
from codealign.dataset.storage.schema import record_parents as edges
from codealign.dataset.storage.schema import records


@dataclass(frozen=True)
class Lineage:
    """A record with its ancestors and descendants."""

    records: list[pb.Record]
    """Breadth first, beginning with the record itself. Within a distance by id, ancestors before descendants."""
    references: list[pb.Record]
    """Configurations and prompt prefixes that the records name and that are not among them, by id."""
    truncated: bool


def lineage(
    database: Database,
    given: str,
    *,
    ancestors: bool = True,
    descendants: bool = True,
    collection: str = "",
    limit: int = 1000,
    max_bytes: int = 2**25,
) -> Lineage:
    """Return the ancestors, the descendants or both, but not the descendants of ancestors.

    Args:
        database: The store of records.
        given: An id, or the beginning of one.
        ancestors: Include records towards the seeds.
        descendants: Include records towards the examples.
        collection: Restrict to its members (and the record itself). Empty: all.
        limit: Maximum number of records.
        max_bytes: Stop before the response exceeds this size.

    Raises:
        NotFound: The record does not exist.
        InvalidArgument: The beginning of the id is ambiguous.
    """

    def work(connection: Connection) -> Lineage:
        start = resolve(connection, given, "id")
        ids = [start] if start else []
        up = [start] if ancestors else []
        down = [start] if descendants else []
        seen = {start}
        while (up or down) and len(ids) <= limit:
            up = _fresh(_parents(connection, up, collection), seen)
            down = _fresh(_children(connection, down, collection, limit + 1), seen)
            ids += up + down
        found = load_within(connection, ids[:limit], max_bytes)
        if not found:
            raise NotFound(f"record {given} does not exist")
        references = _references(connection, found)
        return Lineage(found, references, truncated=len(found) < len(ids))

    return database.read(work, snapshot=True)


def _fresh(found: Iterable[str], seen: set[str]) -> list[str]:
    fresh = sorted(set(found) - seen)
    seen.update(fresh)
    return fresh


def _parents(connection: Connection, ids: Sequence[str], collection: str) -> set[str]:
    found: set[str] = set()
    for some in batched(ids, CHUNK):
        found.update(connection.execute(select(edges.c.parent_id).where(edges.c.child_id.in_(some))).scalars())
    if not collection:
        return found
    kinds: list[tuple[str, int]] = []
    for some in batched(sorted(found), CHUNK):
        statement = select(records.c.id, records.c.kind).where(records.c.id.in_(some))
        kinds += [(row.id, row.kind) for row in connection.execute(statement)]
    return _members(connection, kinds, collection)


def _children(connection: Connection, ids: Sequence[str], collection: str, limit: int) -> set[str]:
    found: set[tuple[str, int]] = set()
    for some in batched(ids, CHUNK):
        statement = select(edges.c.child_id, edges.c.child_kind).distinct().where(edges.c.parent_id.in_(some))
        if not collection:
            statement = statement.order_by(edges.c.child_id).limit(limit)
        found.update((row.child_id, row.child_kind) for row in connection.execute(statement))
        if not collection and len(found) > limit:
            break
    return _members(connection, sorted(found), collection) if collection else {child for child, _ in found}


def _members(connection: Connection, found: Sequence[tuple[str, int]], collection: str) -> set[str]:
    """Return the records, given as (id, kind), that are members.

    A separate statement: in a join, a planner without fresh statistics starts with the millions of a collection.
    """
    by_kind: dict[int, list[str]] = {}
    for key, kind in found:
        by_kind.setdefault(kind, []).append(key)
    kept: set[str] = set()
    for kind, keys in by_kind.items():
        for some in batched(keys, CHUNK):
            statement = select(members.c.record_id).where(
                members.c.collection == collection, members.c.kind == kind, members.c.record_id.in_(some)
            )
            kept.update(connection.execute(statement).scalars())
    return kept


def _references(connection: Connection, found: Sequence[pb.Record]) -> list[pb.Record]:
    there = {record.id for record in found}
    wanted = {record.stage_config_id for record in found}
    for record in found:
        if record.kind == pb.KIND_COMPLETION:  # its parent is the prompt prefix, which need not be a member
            wanted.update(record.parents)
    return [record for _, record in sorted(load(connection, wanted - there - {""}).items())]
