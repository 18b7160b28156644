"""Records written by a newer release: named in one error, and kept unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, func, select, text

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import FailedPrecondition, Internal
from codealign.dataset.storage import lookup
from codealign.dataset.storage.append import append, join
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.lineage import lineage
from codealign.dataset.storage.scan import Query, scan
from codealign.dataset.storage.schema import record_parents, records

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make

NEWER = "f" * 32


@pytest.fixture
def seed_id(database: Database, make: Make) -> str:
    """Create a seed with a child of kind 99, both members of "run"."""
    seed = make.seed()
    append(database, [seed], collection="run")

    def write(connection: Connection) -> None:
        row = {"id": NEWER, "kind": 99, "attempt": 0, "stage_config_id": "", "content_hash": "0" * 64, "key": ""}
        row |= {"label": "", "rejected_kind": 0, "outcome": 0, "provenance": b"", "body": b"\x0a\x01x"}
        connection.execute(records.insert(), row)
        edge = {"child_id": NEWER, "position": 0, "parent_id": seed.id, "child_kind": 99, "stands_for": 99}
        connection.execute(record_parents.insert(), edge | {"stage_config_id": "", "attempt": 0})
        connection.execute(text(f"INSERT INTO collection_members VALUES ('run', 99, '{NEWER}')"))
        connection.execute(text("INSERT INTO tallies VALUES ('run', 99, '', 0, 0, '', 1, 0, 0, 0, 0, 0)"))

    database.write(write)
    return seed.id


def test_reading_one_says_which_it_is_and_what_to_do(database: Database, seed_id: str) -> None:
    said = f"record {NEWER} is of kind 99, which this program does not know: a newer release wrote it"
    for read in (
        lambda: lookup.get(database, [seed_id, NEWER]),
        lambda: scan(database, Query(collection="run")),
        lambda: lineage(database, seed_id),
        lambda: join(database, [seed_id, NEWER], "other"),
    ):
        with pytest.raises(FailedPrecondition, match=said):
            read()
    assert database.read(lambda connection: connection.scalar(select(func.count()).select_from(records))) == 2
    assert lookup.collections(database) == [("run", 2)]  # and nothing joined


def test_everything_else_goes_on(database: Database, seed_id: str, make: Make) -> None:
    assert [record.id for record in lookup.get(database, [seed_id])] == [seed_id]
    assert [tally.kind for tally in lookup.count(database, "run")] == [1, 99]
    assert len(join(database, [seed_id, NEWER], "other", ids_only=True)) == 2
    child = make.concepts(pb.Record(id=NEWER))
    append(database, [child], collection="run")
    assert lookup.get(database, [child.id]) == [child]


def test_a_damaged_body_is_named(database: Database, make: Make) -> None:
    seed = make.seed()
    append(database, [seed])
    database.write(lambda connection: connection.execute(records.update().values(body=b"\xff\xff")))
    with pytest.raises(Internal, match=f"record {seed.id} is damaged"):
        lookup.get(database, [seed.id])
