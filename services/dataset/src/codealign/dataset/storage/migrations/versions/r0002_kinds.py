"""Replaces stages by kinds, adds the key of a record, and counts usage by configuration in the tallies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from codealign.api.dataset.v1 import records_pb2 as pb

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY: TypeEngine[str] = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
# Maximum number of rows in memory.
PAGE = 1000

records = sa.table(
    "records",
    *(sa.column(name) for name in ("id", "kind", "label", "rejected_kind", "outcome", "stage_config_id", "provenance")),
)
members = sa.table("collection_members", sa.column("collection"), sa.column("kind"), sa.column("record_id"))


def upgrade() -> None:
    """Rename columns, add the key, and recompute all tallies."""
    op.drop_index("ix_records_stage", "records")
    op.drop_index("ix_records_config", "records")
    op.alter_column("records", "stage", new_column_name="kind")
    op.alter_column("records", "rejected_stage", new_column_name="rejected_kind")
    op.add_column("records", sa.Column("key", KEY, nullable=False, server_default=""))
    op.create_index("ix_records_kind", "records", ["kind", "id"])
    op.create_index("ix_records_config", "records", ["stage_config_id", "kind", "id"])
    op.alter_column("record_parents", "child_stage", new_column_name="child_kind")
    op.alter_column("collection_members", "stage", new_column_name="kind")
    op.drop_table("tallies")
    tallies = op.create_table(
        "tallies",
        sa.Column("collection", KEY, primary_key=True),
        sa.Column("kind", sa.SmallInteger, primary_key=True),
        sa.Column("label", KEY, primary_key=True),
        sa.Column("rejected_kind", sa.SmallInteger, primary_key=True),
        sa.Column("outcome", sa.SmallInteger, primary_key=True),
        sa.Column("stage_config_id", KEY, primary_key=True),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("generated_tokens", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    counted = _counted(op.get_bind())
    names = [column.name for column in tallies.columns]
    if counted:
        op.bulk_insert(tallies, [dict(zip(names, (*key, *sums), strict=True)) for key, sums in counted.items()])


def _counted(connection: sa.Connection) -> dict[tuple[Any, ...], list[float]]:
    """Return the tallies by primary key, computed from the records and the collections' members."""
    counted: dict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0, 0, 0, 0, 0.0])
    for collection, row in _everything(connection):
        provenance = pb.Provenance.FromString(bytes(row.provenance))
        sums = counted[(collection, row.kind, row.label, row.rejected_kind, row.outcome, row.stage_config_id)]
        sums[0] += 1
        sums[1] += provenance.prompt_tokens
        sums[2] += provenance.cached_prompt_tokens
        sums[3] += provenance.generated_tokens
        sums[4] += provenance.seconds
    return counted


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
