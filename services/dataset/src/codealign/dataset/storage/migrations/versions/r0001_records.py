"""Records, their edges, collections, tallies, leases and versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY: TypeEngine[str] = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the schema."""
    op.create_table(
        "records",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("stage", sa.SmallInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("stage_config_id", KEY, nullable=False),
        sa.Column("content_hash", KEY, nullable=False),
        sa.Column("label", KEY, nullable=False),
        sa.Column("rejected_stage", sa.SmallInteger, nullable=False),
        sa.Column("outcome", sa.SmallInteger, nullable=False),
        sa.Column("provenance", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_records_stage", "records", ["stage", "id"])
    op.create_index("ix_records_config", "records", ["stage_config_id", "stage", "id"])
    op.create_table(
        "record_parents",
        sa.Column("child_id", KEY, primary_key=True),
        sa.Column("position", sa.SmallInteger, primary_key=True),
        sa.Column("parent_id", KEY, nullable=False),
        sa.Column("child_stage", sa.SmallInteger, nullable=False),
        sa.Column("stands_for", sa.SmallInteger, nullable=False),
        sa.Column("stage_config_id", KEY, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_record_parents_parent",
        "record_parents",
        ["parent_id", "stands_for", "stage_config_id", "attempt", "child_id", "child_stage"],
    )
    op.create_table(
        "collection_members",
        sa.Column("collection", KEY, primary_key=True),
        sa.Column("stage", sa.SmallInteger, primary_key=True),
        sa.Column("record_id", KEY, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tallies",
        sa.Column("collection", KEY, primary_key=True),
        sa.Column("stage", sa.SmallInteger, primary_key=True),
        sa.Column("label", KEY, primary_key=True),
        sa.Column("rejected_stage", sa.SmallInteger, primary_key=True),
        sa.Column("outcome", sa.SmallInteger, primary_key=True),
        sa.Column("records", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        sa.Column("name", KEY, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("name", KEY, primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("collection", KEY, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
