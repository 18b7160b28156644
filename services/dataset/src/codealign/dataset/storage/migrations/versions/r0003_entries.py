"""Adds the members of collections by group, in the order in which they became members."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from codealign.api.dataset.v1 import records_pb2 as pb

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY: TypeEngine[str] = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
# Maximum number of rows in memory.
PAGE = 1000

GROUP = ("kind", "label", "rejected_kind", "outcome", "stage_config_id")
records = sa.table("records", *(sa.column(name) for name in ("id", *GROUP, "provenance")))
members = sa.table("collection_members", sa.column("collection"), sa.column("kind"), sa.column("record_id"))


def upgrade() -> None:
    """Create the table and fill it. Earlier members are in the order in which their records were made."""
    entries = op.create_table(
        "collection_entries",
        sa.Column("collection", KEY, primary_key=True),
        sa.Column("kind", sa.SmallInteger, primary_key=True),
        sa.Column("label", KEY, primary_key=True),
        sa.Column("rejected_kind", sa.SmallInteger, primary_key=True),
        sa.Column("outcome", sa.SmallInteger, primary_key=True),
        sa.Column("stage_config_id", KEY, primary_key=True),
        sa.Column("entered", sa.BigInteger, primary_key=True),
        sa.Column("record_id", KEY, primary_key=True),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    place = (members.c.collection, members.c.kind, members.c.record_id)
    after: tuple[object, ...] = ("", 0, "")
    while page := connection.execute(
        sa.select(members.c.collection, records)
        .join_from(members, records, records.c.id == members.c.record_id)
        .where(sa.tuple_(*place) > sa.tuple_(*(sa.literal(value) for value in after)))
        .order_by(*place)
        .limit(PAGE)
    ).all():
        rows = [
            {
                "collection": row.collection,
                **{name: getattr(row, name) for name in GROUP},
                "entered": pb.Provenance.FromString(bytes(row.provenance)).created_at.ToMicroseconds(),
                "record_id": row.id,
            }
            for row in page
        ]
        op.bulk_insert(entries, rows)
        after = (page[-1].collection, page[-1].kind, page[-1].id)
