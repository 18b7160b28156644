"""The lineage of a record: its seeds and its descendants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from codealign.common.errors import NotFound
from codealign.common.records import complete
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.lineage import lineage

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


def test_an_example_goes_back_to_its_seed_breadth_first(database: Database, make: Make) -> None:
    append(database, make.chains(3))
    seed, concepts, instruction, response, verdict, example = make.chain(1)
    found = lineage(database, example.id, descendants=False)
    near = sorted([response, verdict], key=lambda record: record.id)
    assert found.records == [example, *near, instruction, concepts, seed]
    assert not found.truncated


def test_a_seed_goes_forward_to_everything_that_came_of_it(database: Database, make: Make) -> None:
    append(database, make.chains(3))
    seed, concepts, *_ = chain = make.chain(1)
    second = make.instruction(concepts, attempt=1)
    append(database, [second])
    found = lineage(database, seed.id[:8], ancestors=False)
    assert found.records[:2] == [seed, concepts]
    assert {record.id for record in found.records} == {record.id for record in [*chain, second]}


def test_both_ways_leave_out_siblings(database: Database, make: Make) -> None:
    _, concepts, instruction, *_ = chain = make.chain()
    append(database, [*chain, make.instruction(concepts, attempt=1)])
    found = lineage(database, instruction.id)
    assert {record.id for record in found.records} == {record.id for record in chain}


def test_configurations_and_prefixes_come_along(database: Database, make: Make) -> None:
    seed, prefix, sampling, stage = make.seed(), make.prefix(), make.config("sampling"), make.config("concepts")
    completion = make.completion(prefix, sampling.id)
    concepts = make.concepts(seed, config=stage.id)
    concepts.parents.append(completion.id)
    concepts.id = ""
    append(database, [seed, sampling, stage, prefix, completion, complete(concepts)])
    run = [seed, completion, concepts]
    append(database, run, collection="run")
    found = lineage(database, concepts.id)
    assert {record.id for record in found.records} == {record.id for record in [*run, prefix]}
    assert found.references == sorted([sampling, stage], key=lambda record: record.id)
    # The prefix is not a member, but it is the completion's prompt.
    found = lineage(database, concepts.id, collection="run")
    assert {record.id for record in found.records} == {record.id for record in run}
    assert found.references == sorted([sampling, stage, prefix], key=lambda record: record.id)


def test_a_collection_hides_what_other_runs_made(database: Database, make: Make) -> None:
    seed, concepts, *_ = chain = make.chain()
    other = make.concepts(seed, attempt=1)
    append(database, chain, collection="run")
    append(database, [other], collection="other")
    assert len(lineage(database, seed.id).records) == 7
    assert other.id not in {record.id for record in lineage(database, seed.id, collection="run").records}
    assert lineage(database, other.id, collection="other").records == [other]
    assert lineage(database, concepts.id, collection="run", descendants=False).records == [concepts, seed]


@pytest.mark.parametrize(("limit", "truncated"), [(1, True), (5, True), (6, False), (7, False)])
def test_a_limit_cuts_and_says_so(database: Database, make: Make, limit: int, truncated: bool) -> None:
    seed, *_ = chain = make.chain()
    append(database, chain)
    found = lineage(database, seed.id, limit=limit)
    assert len(found.records) == min(limit, 6)
    assert found.truncated == truncated


def test_an_unknown_id_is_not_found(database: Database) -> None:
    for given in ("0" * 32, "abcdef"):
        with pytest.raises(NotFound, match=given):
            lineage(database, given)
