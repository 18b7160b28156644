"""Pages through records, and finds records that lack children."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, and_, distinct, func, select

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.rows import load_within
from codealign.dataset.storage.schema import collection_members, record_parents, records


@dataclass(frozen=True)
class Lacking:
    """Records with fewer than the given number of attempts (0, 1, ...) of a child."""

    kind: int
    """Kind of the child. A rejection that stands for this kind counts as a child too."""
    stage_config_id: str = ""
    """Configuration of the child. Empty: any."""
    attempts: int = 1


@dataclass(frozen=True)
class Query:
    """Selects records. Empty fields do not restrict."""

    kind: int = 0
    collection: str = ""
    """Only its members. `lacking` then counts only children that are also members."""
    stage_config_id: str = ""
    parent_id: str = ""
    lacking: Lacking | None = None


@dataclass(frozen=True)
class Page:
    """A page of records ordered by id."""

    records: list[pb.Record]
    last: bool


def scan(database: Database, query: Query, *, after: str = "", limit: int = 100, max_bytes: int = 2**25) -> Page:
    """Return a page of records.

    Every page is cheap, because it continues from an id along an index. Records added before that id during paging are
    not seen; the next scan returns them.

    Args:
        database: The store of records.
        query: Selects the records.
        after: The last id of the previous page.
        limit: Maximum number of records.
        max_bytes: The page ends before it exceeds this size.
    """

    def work(connection: Connection) -> Page:
        ids = list(connection.execute(_ids(query, after).limit(limit + 1)).scalars())
        page = load_within(connection, ids[:limit], max_bytes)
        return Page(page, last=len(page) == len(ids))

    return database.read(work, snapshot=True)


def _ids(query: Query, after: str) -> Select[str]:
    """Return the statement. It starts from the table whose index is most selective and has the ids in order."""
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
    # Scalar subqueries are answered parent by parent from the index. PostgreSQL may turn NOT EXISTS into a hash of
    # all children, for every page.
    if lacking.attempts == 1:
        return children.limit(1).scalar_subquery().is_(None)
    # Distinct, because an attempt can occur twice: under different configurations, or with a rejection and a record.
    count = children.with_only_columns(func.count(distinct(edges.c.attempt))).scalar_subquery()
    return count < lacking.attempts
