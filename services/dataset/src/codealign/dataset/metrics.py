"""Metrics of the dataset service, besides those of every server."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

APPENDED = Counter("codealign_dataset_appended_records_total", "Records that Append processed", ["kind", "outcome"])
PUBLISHED = Counter("codealign_dataset_published_rows_total", "Rows of published versions")
DATABASE_UP = Gauge("codealign_dataset_database_up", "1 while the database answers, else 0")
DATABASE_SECONDS = Histogram(
    "codealign_dataset_database_seconds",
    "Duration of database transactions, by kind: read or write; waiting for a connection included",
    ["operation"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_REQUESTS = Histogram(
    "codealign_dataset_batch_requests",
    "Append and Join requests per transaction",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
BATCH_RECORDS = Histogram(
    "codealign_dataset_batch_records",
    "Records and memberships written per transaction",
    buckets=(1, 4, 16, 64, 256, 1024, 4096),
)
TABLE_ROWS = Gauge(
    "codealign_dataset_table_rows", "Rows of a database table; an estimate of the database where it has one", ["table"]
)
DATABASE_SIZE = Gauge("codealign_dataset_database_size_bytes", "Size of the database")

for _operation in ("read", "write"):
    DATABASE_SECONDS.labels(_operation)


def show_size(rows: Mapping[str, int], size_bytes: int) -> None:
    """Set the gauges of the database's size.

    Args:
        rows: Rows by table.
        size_bytes: Size of the whole database.
    """
    for table, number in rows.items():
        TABLE_ROWS.labels(table).set(number)
    DATABASE_SIZE.set(size_bytes)
