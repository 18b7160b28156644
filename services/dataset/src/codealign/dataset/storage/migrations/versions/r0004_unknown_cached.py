"""Counts the prompt tokens of which it is unknown how many came from a cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from codealign.api.dataset.v1 import records_pb2 as pb

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Maximum number of rows in memory.
PAGE = 1000

GROUP = ("kind", "label", "rejected_kind", "outcome", "stage_config_id")
KEY = ("collection", *GROUP)
records = sa.table("records", *(sa.column(name) for name in ("id", *GROUP, "provenance")))
members = sa.table("collection_members", sa.column("collection"), sa.column("kind"), sa.column("record_id"))
tallies = sa.table("tallies", *(sa.column(name) for name in (*KEY, "unknown_prompt_tokens")))


def upgrade() -> None:
    """Add the column and sum it up over the records that are there."""
    op.add_column("tallies", sa.Column("unknown_prompt_tokens", sa.BigInteger, nullable=False, server_default="0"))
    connection = op.get_bind()
    counted: Counter[tuple[Any, ...]] = Counter()
    for collection, row in _everything(connection):
        provenance = pb.Provenance.FromString(bytes(row.provenance))
        if provenance.cached_prompt_tokens_unknown:
            counted[(collection, *(getattr(row, name) for name in GROUP))] += provenance.prompt_tokens
    for key, tokens in counted.items():
        there = sa.and_(*(tallies.c[name] == value for name, value in zip(KEY, key, strict=True)))
        connection.execute(sa.update(tallies).where(there).values(unknown_prompt_tokens=tokens))


def _everything(connection: sa.Connection) -> Iterator[tuple[str, sa.Row[Any]]]:
    """Yield every record as a member of "", and every member of a collection."""
    after: tuple[Any, ...] = ("",)
    while page := connection.execute(
        sa.select(records).where(records.c.id > after[0]).order_by(records.c.id).limit(PAGE)
    ).all():
        yield from (("", row) for row in page)
        after = (page[-1].id,)
    place = (members.c.collection, members.c.kind, members.c.record_id)
    after = ("", 0, "")
    while page := connection.execute(
        sa.select(members.c.collection, records)
        .join_from(members, records, records.c.id == members.c.record_id)
        .where(sa.tuple_(*place) > sa.tuple_(*(sa.literal(value) for value in after)))
        .order_by(*place)
        .limit(PAGE)
    ).all():
        yield from ((row.collection, row) for row in page)
        after = (page[-1].collection, page[-1].kind, page[-1].id)
