"""The tables, for SQLite and PostgreSQL alike. Migrations bring a database here; a test proves that they do.

Rows are never changed or removed, leases and tallies apart. There are no foreign keys: `Append` checks parents in
its own transaction, and without removals what was checked stays true.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

# Pages go by the order of ids, and prefixes by ranges: both need the order of bytes, which the "C" collation has
# and a database's default one may not.
KEY: TypeEngine[str] = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

metadata = MetaData()

records = Table(
    "records",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("stage_config_id", KEY, nullable=False),
    Column("content_hash", KEY, nullable=False),
    # What Count groups by: a decision's rule, a rejection's reason, a verdict's name.
    Column("label", KEY, nullable=False),
    Column("rejected_kind", SmallInteger, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    # Behind the rest, so that SQLite reads the columns before them without following overflow pages.
    Column("provenance", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # Wanted with the body alone.
    Column("key", KEY, nullable=False, server_default=""),
    Index("ix_records_kind", "kind", "id"),
    Index("ix_records_config", "stage_config_id", "kind", "id"),
)

record_parents = Table(
    "record_parents",
    metadata,
    Column("child_id", KEY, primary_key=True),
    Column("position", SmallInteger, primary_key=True),
    Column("parent_id", KEY, nullable=False),
    # Copied from the child, so that "which parents lack a child" is answered from the index alone.
    Column("child_kind", SmallInteger, nullable=False),
    # The child's kind, or for a rejection the kind that it stands for.
    Column("stands_for", SmallInteger, nullable=False),
    Column("stage_config_id", KEY, nullable=False),
    Column("attempt", Integer, nullable=False),
    Index(
        "ix_record_parents_parent", "parent_id", "stands_for", "stage_config_id", "attempt", "child_id", "child_kind"
    ),
    sqlite_with_rowid=False,
)

collection_members = Table(
    "collection_members",
    metadata,
    Column("collection", KEY, primary_key=True),
    Column("kind", SmallInteger, primary_key=True),
    Column("record_id", KEY, primary_key=True),
    sqlite_with_rowid=False,
)

# How many records there are by kind, configuration and label, and what they took, kept up with every append and join:
# counting millions of rows for each look at a run's progress would take seconds. The collection "" is the whole store.
tallies = Table(
    "tallies",
    metadata,
    Column("collection", KEY, primary_key=True),
    Column("kind", SmallInteger, primary_key=True),
    Column("label", KEY, primary_key=True),
    Column("rejected_kind", SmallInteger, primary_key=True),
    Column("outcome", SmallInteger, primary_key=True),
    Column("stage_config_id", KEY, primary_key=True),
    Column("records", BigInteger, nullable=False),
    # Sums over the records' provenance.
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_prompt_tokens", BigInteger, nullable=False),
    Column("generated_tokens", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    sqlite_with_rowid=False,
)

leases = Table(
    "leases",
    metadata,
    Column("name", KEY, primary_key=True),
    Column("holder", Text, nullable=False),
    # Grows with every holder and is never reset: a release leaves the row.
    Column("token", BigInteger, nullable=False),
    # Seconds since 1970 by the database's clock.
    Column("expires_at", Double, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("name", KEY, primary_key=True),
    Column("title", Text, nullable=False),
    Column("collection", KEY, nullable=False),
    Column("rows", BigInteger, nullable=False),
    # The manifest's list of files, as JSON.
    Column("files", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)
