"""Making existing records members of a collection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound
from codealign.dataset.storage import leases, lookup
from codealign.dataset.storage.append import append, carry_out, join
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.leases import Fence
from codealign.dataset.storage.rows import entry
from codealign.dataset.storage.writes import Append, Join, Write

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


def test_records_become_members_and_come_back_in_the_order_asked_for(database: Database, make: Make) -> None:
    chain = make.chain()
    append(database, chain, collection="one")
    asked = [chain[3].id, "0" * 32, chain[0].id, chain[3].id]
    assert join(database, asked, "two") == [chain[3], chain[0], chain[3]]
    assert lookup.collections(database) == [("one", 6), ("two", 2)]


def test_ids_alone_come_back_where_they_are_wanted(database: Database, make: Make) -> None:
    chain = make.chain()
    append(database, chain)
    answer = join(database, [chain[2].id, "0" * 32, chain[1].id], "run", ids_only=True)
    assert answer == [pb.Record(id=chain[2].id), pb.Record(id=chain[1].id)]
    assert lookup.collections(database) == [("run", 2)]


def test_joining_again_is_joining_once(database: Database, make: Make) -> None:
    chain = make.chain()
    append(database, chain[:4], collection="run")
    append(database, chain[4:])
    for _ in range(2):
        assert len(join(database, [record.id for record in chain], "run")) == 6
    assert lookup.collections(database) == [("run", 6)]
    assert lookup.count(database, "run") == lookup.count(database)


def test_a_lost_lease_joins_nothing(database: Database, make: Make) -> None:
    chain = make.chain()
    append(database, chain)
    old = leases.acquire(database, "run", "one", 0.05)
    time.sleep(0.1)
    ids = [record.id for record in chain]
    with pytest.raises(FailedPrecondition, match="expired"):
        join(database, ids, "run", fence=Fence("run", old.token))
    new = leases.acquire(database, "run", "two", 60)
    with pytest.raises(FailedPrecondition, match="two has it"):
        join(database, ids, "run", fence=Fence("run", old.token))
    with pytest.raises(NotFound):
        join(database, ids, "run", fence=Fence("nowhere", 1))
    assert lookup.collections(database) == []
    assert len(join(database, ids, "run", fence=Fence("run", new.token))) == 6


def test_an_answer_that_does_not_fit_joins_nothing(database: Database, make: Make) -> None:
    seed = make.seed()
    append(database, [seed])
    (refused,) = carry_out(database, [Join([seed.id], "run", max_bytes=10)])
    assert isinstance(refused, InvalidArgument)
    assert "request fewer" in refused.message
    assert lookup.collections(database) == []
    (answer,) = carry_out(database, [Join([seed.id], "run", ids_only=True, max_bytes=10)])
    assert answer == [pb.Record(id=seed.id)]


def test_nothing_to_join_is_no_error(database: Database) -> None:
    assert join(database, [], "run") == join(database, ["0" * 32], "run") == []
    assert lookup.collections(database) == []


def test_a_join_sees_nothing_of_appends_beside_it_and_enters_nothing_of_them(database: Database, make: Make) -> None:
    seed = make.seed()
    group: list[Write] = [Append([entry(seed)], ""), Join([seed.id], "run"), Join([seed.id], "run", ids_only=True)]
    results = carry_out(database, group)
    assert results[1:] == [[], []]
    assert lookup.collections(database) == []
    assert carry_out(database, group)[1:] == [[seed], [pb.Record(id=seed.id)]]
    assert lookup.collections(database) == [("run", 1)]
