"""Tables for SQLite and PostgreSQL. A test verifies that the migrations produce this schema.

Rows are never changed or removed, except leases and tallies. There are no foreign keys: `Append` checks parents in
its own transaction, and since nothing is removed, the result stays valid.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

# Pages depend on the order of ids, and prefixes on ranges. Both need byte order, which the "C" collation has
# and a database's default collation may not.
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
    # After the other columns, so that SQLite reads those without following overflow pages.
    Column("provenance", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # Only read together with the body.
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
    # Copied from the child, so that the index alone answers which parents lack a child.
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

# The members again, by what Count groups by and in the order in which they became members: people look at the newest
# first, filtered. A page is a merge of the groups that match.
collection_entries = Table(
    "collection_entries",
    metadata,
    Column("collection", KEY, primary_key=True),
    Column("kind", SmallInteger, primary_key=True),
    Column("label", KEY, primary_key=True),
    Column("rejected_kind", SmallInteger, primary_key=True),
    Column("outcome", SmallInteger, primary_key=True),
    Column("stage_config_id", KEY, primary_key=True),
    # Microseconds since 1970 by the clock of the service, so that it only orders.
    Column("entered", BigInteger, primary_key=True),
    Column("record_id", KEY, primary_key=True),
    sqlite_with_rowid=False,
)

# Number of records by kind, configuration and label, and their usage, updated with every append and join: counting
# millions of rows for each progress query would take seconds. The collection "" is the whole store.
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
    # Of prompt_tokens, those of records of which it is unknown how many were cached.
    Column("unknown_prompt_tokens", BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

leases = Table(
    "leases",
    metadata,
    Column("name", KEY, primary_key=True),
    Column("holder", Text, nullable=False),
    # Increases with every holder and is never reset: a release keeps the row.
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
