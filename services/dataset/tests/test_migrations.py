"""The schema: created by migrations and checked at start-up."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import ConfigurationError
from codealign.dataset.storage import lookup, migrate
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database, parse_url
from codealign.dataset.storage.lookup import Tally
from codealign.dataset.storage.rows import entry
from codealign.dataset.storage.schema import metadata

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


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
            with pytest.raises(
                ConfigurationError, match=rf"9999, which is newer than this program \({migrate.head()}\)"
            ):
                step(database)
    finally:
        set_revision(migrate.head())


def at_first_revision(database: Database) -> None:
    """Create a database with the first release's schema."""

    def work(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    database.write(work)


@pytest.fixture(params=["sqlite", "postgresql"])
def old_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/old.db"
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        name = f"old_{uuid.uuid4().hex}"
        postgres.create(name)
        url = postgres.url_of(name)
    database = Database(url)
    at_first_revision(database)
    yield database
    database.close()


def old_rows(records: list[pb.Record]) -> dict[str, list[dict[str, object]]]:
    """Return records as the first release stored them: all members of "run", and every second one of "other"."""
    rows: dict[str, list[dict[str, object]]] = {"records": [], "record_parents": [], "collection_members": []}
    for number, record in enumerate(records):
        item = entry(record)
        head = item.head
        common = {"stage_config_id": record.stage_config_id, "attempt": record.attempt}
        row = {
            "id": record.id,
            "stage": record.kind,
            **common,
            "content_hash": record.content_hash,
            "label": head.label,
            "rejected_stage": head.rejected_kind,
            "outcome": head.outcome,
            "provenance": head.provenance,
            "body": item.body,
        }
        rows["records"].append(row)
        for position, parent in enumerate(record.parents):
            edge = {"child_id": record.id, "position": position, "parent_id": parent, "child_stage": record.kind}
            rows["record_parents"].append({**edge, "stands_for": head.rejected_kind or record.kind, **common})
        for collection in ("run", "other") if number % 2 else ("run",):
            member: dict[str, object] = {"collection": collection, "stage": record.kind, "record_id": record.id}
            rows["collection_members"].append(member)
    return rows


def test_a_first_releases_records_are_all_there_after_the_migration(old_database: Database, make: Make) -> None:
    records = make.chains(200)  # more than are counted at a time
    seed = records[0]
    records += [make.rejection(seed, pb.KIND_RESPONSE, 1, "5" * 32, "cut-off"), make.decision(seed, kept=False)]
    for record in records:
        record.provenance.generated_tokens = 3
        record.provenance.seconds = 0.5
        record.provenance.prompt_tokens = 10
    for record in records[::2]:
        record.provenance.cached_prompt_tokens_unknown = True

    def fill(connection: Connection) -> None:
        for table, rows in old_rows(records).items():
            names = rows[0].keys()
            places = ", ".join(f":{name}" for name in names)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"), rows)
        wrong = "INSERT INTO tallies VALUES ('run', 1, '', 0, 0, 77)"  # everything is recounted
        connection.execute(text(wrong))

    old_database.write(fill)
    migrate.upgrade(old_database)
    migrate.check(old_database)
    assert lookup.get(old_database, [record.id for record in records]) == records
    for collection, members in (("", records), ("run", records), ("other", records[1::2])):
        tallies = lookup.count(old_database, collection)
        assert sum(tally.records for tally in tallies) == len(members)
        assert sum(tally.generated_tokens for tally in tallies) == 3 * len(members)
        unknown = sum(record.provenance.cached_prompt_tokens_unknown for record in members)
        assert sum(tally.unknown_prompt_tokens for tally in tallies) == 10 * unknown
        assert sum(tally.seconds for tally in tallies) == len(members) / 2
        kinds = Counter(record.kind for record in members)
        assert {kind: sum(tally.records for tally in tallies if tally.kind == kind) for kind in kinds} == kinds
    dropped = [tally for tally in lookup.count(old_database) if tally.kind == pb.KIND_REJECTION]
    asked = 10 * records[-2].provenance.cached_prompt_tokens_unknown
    assert dropped == [Tally(pb.KIND_REJECTION, "cut-off", pb.KIND_RESPONSE, 0, "5" * 32, 1, 10, 0, 3, 0.5, asked)]
    assert {item.outcome for item in append(old_database, records, collection="run")} == {
        dataset_pb2.APPEND_OUTCOME_EXISTED
    }
    assert lookup.collections(old_database) == [("other", len(records) // 2), ("run", len(records))]


def test_an_empty_database_of_the_first_release_migrates(old_database: Database, make: Make) -> None:
    migrate.upgrade(old_database)
    assert lookup.count(old_database) == []
    append(old_database, make.chain(), collection="run")


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
    with pytest.raises(Exception, match="is unavailable") as caught:
        database.ping()
    assert "secret" not in str(caught.value)
