"""Metrics of the dataset service, besides those of every server."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

APPENDED = Counter("codealign_dataset_appended_records_total", "Records received by Append", ["kind", "outcome"])
PUBLISHED = Counter("codealign_dataset_published_rows_total", "Rows of written versions")
DATABASE_UP = Gauge("codealign_dataset_database_up", "1 if the database answers")
