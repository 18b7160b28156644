"""Which records there are, a page at a time, and which of them lack a child."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, and_, distinct, func, select

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.rows import load_within
from codealign.dataset.storage.schema import collection_members, record_parents, records


@dataclass(frozen=True)
class Lacking:
    """Records with fewer than so many of the attempts 0, 1, ... of a child."""

    kind: int
    """The child's; a rejection that stands for this kind is a child too."""
    stage_config_id: str = ""
    """The child's. Empty: any."""
    attempts: int = 1


@dataclass(frozen=True)
class Query:
    """Which records; an empty field does not restrict."""

    kind: int = 0
    collection: str = ""
    """Members of it alone; `lacking` then counts children alone that are members as well."""
    stage_config_id: str = ""
    parent_id: str = ""
    lacking: Lacking | None = None


@dataclass(frozen=True)
class Page:
    """Records in the order of their ids."""

    records: list[pb.Record]
    last: bool


def scan(database: Database, query: Query, *, after: str = "", limit: int = 100, max_bytes: int = 2**25) -> Page:
    """A page of records.

    A page is cheap however deep it lies: it goes on from an id along an index. Records that are added behind that
    id while a caller pages are not seen by it; the next scan has them.

    Args:
        database: Where they are.
        query: Which records.
        after: The last id of the page before.
        limit: Records at most.
        max_bytes: The page ends earlier where it would grow beyond this.
    """

    def work(connection: Connection) -> Page:
        ids = list(connection.execute(_ids(query, after).limit(limit + 1)).scalars())
        page = load_within(connection, ids[:limit], max_bytes)
        return Page(page, last=len(page) == len(ids))

    return database.read(work, snapshot=True)


def _ids(query: Query, after: str) -> Select[str]:
    """The statement. It starts from the table whose index restricts most and has the ids in order."""
    members, edges = collection_members, record_parents
    if query.parent_id:
        key = edges.c.child_id
        statement = select(key).distinct().where(edges.c.parent_id == query.parent_id)
        kind, config = edges.c.child_kind, edges.c.stage_config_id
    elif query.collection and query.kind:
        key = members.c.record_id
        statement = select(key).where(members.c.collection == query.collection)
        kind, config = members.c.kind, records.c.stage_config_id
        if query.stage_config_id:
            statement = statement.join(records, records.c.id == key)
    else:
        key = records.c.id
        statement = select(key)
        kind, config = records.c.kind, records.c.stage_config_id
    if query.kind:
        statement = statement.where(kind == query.kind)
    if query.stage_config_id:
        statement = statement.where(config == query.stage_config_id)
    if query.collection and kind is not members.c.kind:
        statement = statement.where(_is_member(query.collection, kind, key))
    if query.lacking:
        statement = statement.where(_lacks(query.lacking, query.collection, key))
    return statement.where(key > after).order_by(key)


def _is_member(collection: str, kind: ColumnElement[int], record_id: ColumnElement[str]) -> ColumnElement[bool]:
    members = collection_members.alias()
    condition = and_(members.c.collection == collection, members.c.kind == kind, members.c.record_id == record_id)
    return select(members.c.record_id).where(condition).exists()


def _lacks(lacking: Lacking, collection: str, parent: ColumnElement[str]) -> ColumnElement[bool]:
    edges = record_parents.alias("child_edges")
    children = select(edges.c.child_id).where(
        edges.c.parent_id == parent,
        edges.c.stands_for == lacking.kind,
        edges.c.attempt < lacking.attempts,
    )
    if lacking.stage_config_id:
        children = children.where(edges.c.stage_config_id == lacking.stage_config_id)
    if collection:
        children = children.where(_is_member(collection, edges.c.child_kind, edges.c.child_id))
    # Scalar subqueries, which are answered parent by parent from the index: PostgreSQL may turn NOT EXISTS into a
    # hash of all children, and that for every page.
    if lacking.attempts == 1:
        return children.limit(1).scalar_subquery().is_(None)
    # Distinct: under any configuration, or with a rejection beside a record, an attempt can be there twice.
    count = children.with_only_columns(func.count(distinct(edges.c.attempt))).scalar_subquery()
    return count < lacking.attempts
