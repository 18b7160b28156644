"""What the service counts, beside what every server does."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

APPENDED = Counter("codealign_dataset_appended_records_total", "Records that Append took", ["kind", "outcome"])
PUBLISHED = Counter("codealign_dataset_published_rows_total", "Rows of the versions that were written")
DATABASE_UP = Gauge("codealign_dataset_database_up", "1 while the database answers")
