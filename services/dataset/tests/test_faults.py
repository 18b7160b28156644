"""Faults of the database: a full disk, an unavailable server, a locked file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from codealign.common.errors import Internal, ResourceExhausted, Unavailable
from codealign.dataset.storage import database as database_module
from codealign.dataset.storage import lookup
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.faults import translate

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make, Postgres


def test_a_full_disk_is_resource_exhausted_and_undoes_the_append(sqlite_database: Database, make: Make) -> None:
    append(sqlite_database, [make.seed()])
    sqlite_database.writing_engine.dispose()

    @event.listens_for(sqlite_database.writing_engine, "connect")
    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 40")

    with pytest.raises(ResourceExhausted, match="free space"):
        append(sqlite_database, make.chains(150), collection="run")
    assert [tally.records for tally in lookup.count(sqlite_database)] == [1]
    assert lookup.count(sqlite_database, "run") == []


def test_a_database_that_is_away_is_unavailable_and_comes_back(
    postgres: Postgres, postgres_database: Database, make: Make
) -> None:
    append(postgres_database, [make.seed()])
    postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(Unavailable, match="is unavailable") as caught:
                append(postgres_database, [make.seed(1)])
            assert caught.value.retry_after > 0
    finally:
        postgres.start()
    append(postgres_database, [make.seed(1)])
    assert lookup.count(postgres_database)[0].records == 2


def test_a_file_that_another_process_locks_is_unavailable(
    sqlite_database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.1)
    impatient = Database(str(sqlite_database.engine.url))
    other = sqlite3.connect(sqlite_database.place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Unavailable, match="locked by another process"):
            append(impatient, [make.seed()])
        assert lookup.count(impatient) == []  # readers continue
    finally:
        other.close()
    append(impatient, [make.seed()])


def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    folder = tmp_path / "a-folder"
    folder.mkdir()
    with pytest.raises(Unavailable, match="check that its disk is mounted"):
        Database(f"sqlite:///{folder}").ping()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", ResourceExhausted),
        ("53300", Unavailable),
        ("57P01", Unavailable),
        ("08006", Unavailable),
        ("40P01", Unavailable),
        ("25006", Unavailable),
        ("42P01", Internal),
    ],
)
def test_postgresql_states_have_their_meaning(state: str, kind: type[Exception]) -> None:
    class Cause(Exception):
        sqlstate = state

    error: Any = DBAPIError("statement", None, Cause("what happened"))
    assert type(translate(error, "the database")) is kind
