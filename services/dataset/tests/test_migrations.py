"""The schema: made by migrations, checked at start."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from codealign.common.errors import ConfigurationError
from codealign.dataset.storage import migrate
from codealign.dataset.storage.database import Database, parse_url
from codealign.dataset.storage.schema import metadata


def test_migrations_lead_to_the_schema(database: Database) -> None:
    def differences(connection: object) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})  # type: ignore[arg-type]
        return list(compare_metadata(context, metadata))

    assert database.read(differences) == []
    names = database.read(lambda connection: inspect(connection).get_table_names())
    assert sorted(names) == sorted([*metadata.tables, "alembic_version"])


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate.upgrade(database)
    migrate.check(database)


def test_a_database_without_a_schema_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no schema yet: run `codealign-dataset migrate`"):
        migrate.check(Database(f"sqlite:///{tmp_path}/new.db"))


def test_a_newer_database_is_refused(database: Database) -> None:
    def set_revision(revision: str) -> None:
        statement = text("UPDATE alembic_version SET version_num = :revision")
        database.write(lambda connection: connection.execute(statement, {"revision": revision}))

    set_revision("9999")
    try:
        for step in (migrate.check, migrate.upgrade):
            with pytest.raises(ConfigurationError, match="9999, which is newer than this program"):
                step(database)
    finally:
        set_revision(migrate.head())


def test_two_that_migrate_at_once_both_succeed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: migrate.upgrade(Database(url)), range(2)))
    migrate.check(Database(url))


@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, sqlite_template: Path, damage: str) -> None:
    path = tmp_path / "records.db"
    content = sqlite_template.read_bytes()
    path.write_bytes(b"no database, surely" * 500 if damage == "garbage" else content[: len(content) // 3])
    with pytest.raises(ConfigurationError, match=r"damaged|not a database|malformed"):
        migrate.upgrade(Database(f"sqlite:///{path}"))


@pytest.mark.parametrize("url", ["", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database_url"):
        parse_url(url)


def test_a_password_is_never_shown() -> None:
    database = Database("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in database.place
    with pytest.raises(Exception, match="is away") as caught:
        database.ping()
    assert "secret" not in str(caught.value)
