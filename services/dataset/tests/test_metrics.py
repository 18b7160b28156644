"""The database's size and times, as Prometheus reads them."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from codealign.dataset.metrics import show_size
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.size import measure
from services.dataset.tests.conftest import Make, fill


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"codealign_dataset_{name}", labels) or 0.0


def test_the_size_is_known_without_counting_a_table(database: Database, make: Make) -> None:
    fill(database, [make.seed(number) for number in range(5)], "some")
    size = measure(database)
    assert size.size_bytes > 4096
    assert {"records", "collection_members", "versions"} <= size.rows.keys()
    if database.is_sqlite:  # PostgreSQL's statistics arrive later
        assert size.rows == {"records": 5, "collection_members": 5, "versions": 0}
    show_size(size.rows, size.size_bytes)
    assert count("table_rows", table="records") == size.rows["records"]


def test_every_transaction_is_timed_by_its_kind(sqlite_database: Database, make: Make) -> None:
    reads, writes = (count("database_seconds_count", operation=kind) for kind in ("read", "write"))
    fill(sqlite_database, [make.seed(0)])
    assert count("database_seconds_count", operation="write") == writes + 1
    sqlite_database.ping()
    assert count("database_seconds_count", operation="read") == reads + 1


def test_a_failed_transaction_is_timed_too(sqlite_database: Database) -> None:
    writes = count("database_seconds_count", operation="write")

    def fail(_: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        sqlite_database.write(fail)
    assert count("database_seconds_count", operation="write") == writes + 1
