"""The tallies updated with every append and join equal a recount."""

from __future__ import annotations

import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.records import complete
from codealign.dataset.storage import lookup
from codealign.dataset.storage.append import append, join
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.lookup import Tally
from codealign.dataset.storage.rows import label
from codealign.dataset.storage.schema import collection_members, records

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


def recount(database: Database, collection: str) -> list[Tally]:
    """Compute the tallies from the records."""
    ids = select(records.c.id)
    if collection:
        ids = select(collection_members.c.record_id).where(collection_members.c.collection == collection)
    found = lookup.get(database, database.read(lambda connection: list(connection.execute(ids).scalars())))
    sums: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, 0, 0, 0, 0.0, 0])
    for record in found:
        key = (
            record.kind,
            label(record),
            record.rejection.rejected_kind,
            record.decision.outcome,
            record.stage_config_id,
        )
        took = record.provenance
        unknown = took.prompt_tokens if took.cached_prompt_tokens_unknown else 0
        values = (1, took.prompt_tokens, took.cached_prompt_tokens, took.generated_tokens, took.seconds, unknown)
        sums[key] = [one + other for one, other in zip(sums[key], values, strict=True)]
    return [Tally(*key, *values) for key, values in sorted(sums.items())]


def some_records(make: Make) -> list[pb.Record]:
    """Return records of several kinds, parents first. Halves of a second add up exactly."""
    chosen = random.Random(3)
    found: list[pb.Record] = []
    for number in range(30):
        config = make.config(f"stage {number % 3}").id
        chain = make.chain(number)
        found += chain
        found.append(make.rejection(chain[0], pb.KIND_RESPONSE, 1, config, reason=f"reason {number % 2}"))
        found.append(make.decision(chain[0], kept=number % 4 > 0))
        found.append(make.response(chain[2], 1, config))
    for record in found:
        if chosen.random() < 0.7:
            record.provenance.prompt_tokens = chosen.randrange(1000)
            if chosen.random() < 0.5:
                record.provenance.cached_prompt_tokens = chosen.randrange(100)
            else:
                record.provenance.cached_prompt_tokens_unknown = True
            record.provenance.generated_tokens = chosen.randrange(500)
            record.provenance.seconds = chosen.randrange(100) / 2
    return found


@pytest.mark.parametrize("workers", [1, 4])
def test_tallies_equal_a_recount_after_random_appends_and_joins(database: Database, make: Make, workers: int) -> None:
    everything = some_records(make)

    def work(number: int) -> None:
        chosen = random.Random(number)
        for _ in range(12):
            collection = chosen.choice(["", "one", "two"])
            start = chosen.randrange(len(everything) // 9) * 9  # whole chains
            if chosen.random() < 0.6:
                append(database, everything[start : start + 9 * chosen.randrange(1, 8)], collection=collection)
            else:
                some = chosen.sample(everything, 40)
                join(
                    database,
                    [record.id for record in some],
                    collection or "three",
                    ids_only=chosen.random() < 0.5,
                )

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers * 2)))
    for collection in ("", "one", "two", "three"):
        counted = lookup.count(database, collection)
        assert counted == recount(database, collection)
        assert counted


def test_tokens_and_seconds_are_summed_by_stage(database: Database, make: Make) -> None:
    seed, one, two = make.seed(), make.config("one"), make.config("two")
    made = [make.response(seed, attempt, config.id) for config in (one, two) for attempt in range(3)]
    for record in made:
        record.provenance.prompt_tokens = 100
        record.provenance.cached_prompt_tokens = 10
        record.provenance.generated_tokens = 7
        record.provenance.seconds = 0.5
    append(database, [seed, *made])
    append(database, made[:2], collection="run")
    join(database, [record.id for record in made[1:4]], "run")
    assert lookup.count(database, "run") == sorted(
        (
            Tally(pb.KIND_RESPONSE, "", 0, 0, one.id, 3, 300, 30, 21, 1.5),
            Tally(pb.KIND_RESPONSE, "", 0, 0, two.id, 1, 100, 10, 7, 0.5),
        ),
        key=lambda tally: tally.stage_config_id,
    )


def test_what_is_counted_is_what_is_kept(database: Database, make: Make) -> None:
    seed = make.seed()
    first, again = make.concepts(seed), make.concepts(seed, words="other")
    first.provenance.generated_tokens = 5
    again.provenance.generated_tokens = 50
    append(database, [seed, complete(first)])
    append(database, [complete(again)], collection="run")
    for collection in ("", "run"):
        assert lookup.count(database, collection)[-1].generated_tokens == 5
