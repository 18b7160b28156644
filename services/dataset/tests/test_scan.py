"""Scanning: filters, pages, and records that lack a child."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.scan import Lacking, Query, scan

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make

SEED, CONCEPTS, RESPONSE = pb.KIND_SEED, pb.KIND_CONCEPT_SET, pb.KIND_RESPONSE
ONE, TWO = "1" * 32, "2" * 32


def ids(database: Database, query: Query, size: int = 1000) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = scan(database, query, after=after, limit=size)
        assert len(page.records) <= size
        found += [record.id for record in page.records]
        if page.last:
            return found
        after = found[-1]


def sorted_ids(records: Sequence[pb.Record]) -> list[str]:
    return sorted(record.id for record in records)


@pytest.mark.parametrize("size", [1, 2, 7, 24, 25, 26, 1000])
def test_pages_of_any_size_have_every_record_once_in_order(database: Database, make: Make, size: int) -> None:
    seeds = [make.seed(number) for number in range(25)]
    append(database, [*seeds, make.config()], collection="run")
    for query in (Query(kind=SEED), Query(kind=SEED, collection="run")):
        assert ids(database, query, size) == sorted_ids(seeds)


def test_a_page_ends_early_where_it_grows_too_large(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(5)]
    append(database, seeds)
    size = max(seed.ByteSize() for seed in seeds)
    first = scan(database, Query(kind=SEED), limit=5, max_bytes=2 * size)
    assert (len(first.records), first.last) == (2, False)
    assert len(scan(database, Query(kind=SEED), limit=5, max_bytes=1).records) == 1


def test_nothing_is_an_empty_last_page(database: Database) -> None:
    page = scan(database, Query(kind=SEED))
    assert page.last
    assert not page.records


def test_filters_restrict_together(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(4)]
    ones = [make.concepts(seed, config=ONE) for seed in seeds]
    twos = [make.concepts(seed, config=TWO) for seed in seeds]
    rejected = make.rejection(seeds[0], CONCEPTS, attempt=1, config=ONE)
    append(database, [*seeds, *ones, *twos, rejected])
    append(database, [ones[0], twos[0], rejected, seeds[1]], collection="run")
    assert ids(database, Query(kind=CONCEPTS)) == sorted_ids([*ones, *twos])
    assert ids(database, Query(kind=CONCEPTS, stage_config_id=ONE)) == sorted_ids(ones)
    assert ids(database, Query(kind=CONCEPTS, collection="run")) == sorted_ids([ones[0], twos[0]])
    assert ids(database, Query(kind=CONCEPTS, collection="run", stage_config_id=TWO)) == [twos[0].id]
    assert ids(database, Query(parent_id=seeds[0].id)) == sorted_ids([ones[0], twos[0], rejected])
    assert ids(database, Query(kind=CONCEPTS, parent_id=seeds[0].id)) == sorted_ids([ones[0], twos[0]])
    assert ids(database, Query(parent_id=seeds[1].id, collection="run")) == []
    assert ids(database, Query(collection="run")) == sorted_ids([ones[0], twos[0], rejected, seeds[1]])
    assert ids(database, Query(stage_config_id=ONE)) == sorted_ids([*ones, rejected])
    assert len(ids(database, Query())) == 13


def test_a_child_with_the_same_parent_twice_comes_once(database: Database, make: Make) -> None:
    chain = make.chain()
    twin = pb.Record(kind=pb.KIND_DECISION, parents=[chain[0].id, chain[0].id])
    twin.decision.rule = "pair"
    from codealign.common.records import complete

    append(database, [*chain, complete(twin)])
    assert ids(database, Query(parent_id=chain[0].id, kind=pb.KIND_DECISION)) == [twin.id]


def test_parents_without_a_child_are_found(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(6)]
    append(database, seeds)
    query = Query(kind=SEED, lacking=Lacking(CONCEPTS))
    assert ids(database, query, 4) == sorted_ids(seeds)
    append(database, [make.concepts(seed) for seed in seeds[:4]])
    assert ids(database, query, 1) == sorted_ids(seeds[4:])


def test_a_rejection_stands_for_the_child_of_its_kind_alone(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(3)]
    append(
        database,
        [*seeds, make.rejection(seeds[0], CONCEPTS), make.rejection(seeds[1], RESPONSE), make.response(seeds[2])],
    )
    assert ids(database, Query(kind=SEED, lacking=Lacking(CONCEPTS))) == sorted_ids(seeds[1:])
    assert ids(database, Query(kind=SEED, lacking=Lacking(RESPONSE))) == [seeds[0].id]
    assert ids(database, Query(kind=SEED, lacking=Lacking(pb.KIND_REJECTION))) == sorted_ids(seeds)


def test_children_of_another_configuration_do_not_count(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(2)]
    append(database, [*seeds, make.concepts(seeds[0], config=ONE)])
    assert ids(database, Query(kind=SEED, lacking=Lacking(CONCEPTS, ONE))) == [seeds[1].id]
    assert ids(database, Query(kind=SEED, lacking=Lacking(CONCEPTS, TWO))) == sorted_ids(seeds)
    assert ids(database, Query(kind=SEED, lacking=Lacking(CONCEPTS))) == [seeds[1].id]


def test_each_attempt_must_be_there_as_record_or_rejection(database: Database, make: Make) -> None:
    seed = make.seed()
    query = Query(kind=SEED, lacking=Lacking(RESPONSE, ONE, attempts=3))
    append(database, [seed, make.response(seed, 0, ONE), make.rejection(seed, RESPONSE, 1, ONE)])
    assert ids(database, query) == [seed.id]
    # Neither a later attempt nor a repeated one (as a rejection) replaces attempt 2.
    append(database, [make.response(seed, 3, ONE), make.rejection(seed, RESPONSE, 0, ONE), make.response(seed, 2, TWO)])
    assert ids(database, query) == [seed.id]
    append(database, [make.response(seed, 2, ONE)])
    assert ids(database, query) == []


def test_with_a_collection_its_parents_and_children_alone_count(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(3)]
    append(database, seeds)
    append(database, seeds[:2], collection="run")
    children = [make.concepts(seed) for seed in seeds]
    append(database, children, collection="other")
    query = Query(kind=SEED, collection="run", lacking=Lacking(CONCEPTS))
    assert ids(database, query) == sorted_ids(seeds[:2])
    append(database, children[:1], collection="run")
    append(database, [make.rejection(seeds[1], CONCEPTS)], collection="run")
    assert ids(database, query) == []
    assert ids(database, Query(kind=SEED, collection="run", lacking=Lacking(CONCEPTS, attempts=2))) == sorted_ids(
        seeds[:2]
    )


def test_scans_use_their_indexes(sqlite_database: Database, make: Make) -> None:
    """No scan reads the whole table of records, whose rows are large."""
    from codealign.dataset.storage.scan import _ids

    lacking = Lacking(RESPONSE, ONE, attempts=3)
    queries = [
        Query(kind=SEED),
        Query(kind=SEED, stage_config_id=ONE),
        Query(kind=SEED, collection="run"),
        Query(kind=SEED, collection="run", stage_config_id=ONE),
        Query(parent_id=TWO),
        Query(kind=SEED, collection="run", lacking=lacking),
        Query(kind=SEED, lacking=Lacking(CONCEPTS)),
    ]
    for query in queries:
        compiled = _ids(query, "").limit(10).compile(sqlite_database.engine, compile_kwargs={"literal_binds": True})
        explain = text(f"EXPLAIN QUERY PLAN {compiled}")
        with sqlite_database.engine.connect() as connection:
            plan = [row[-1] for row in connection.execute(explain)]
        assert not [step for step in plan if step.startswith("SCAN")], (query, plan)
        if not query.parent_id:  # a parent has few children, which are sorted
            assert not [step for step in plan if "ORDER BY" in step], (query, plan)
