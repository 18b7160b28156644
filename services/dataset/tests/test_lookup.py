"""Getting and counting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.errors import InvalidArgument
from codealign.dataset.storage import lookup
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.lookup import Tally

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


def test_records_come_in_the_order_asked_for_without_the_missing(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(3)]
    append(database, seeds)
    asked = [seeds[2].id, "0" * 32, seeds[0].id, seeds[2].id]
    assert [record.id for record in lookup.get(database, asked)] == [seeds[2].id, seeds[0].id, seeds[2].id]


def test_an_ids_first_digits_are_enough(database: Database, make: Make) -> None:
    seed = make.seed()
    append(database, [seed])
    assert lookup.get(database, [seed.id[:6], "ffffff" if seed.id[:6] != "ffffff" else "000000"]) == [seed]


def test_ambiguous_digits_are_refused_with_the_number_of_matches(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(100)]
    append(database, seeds)
    digit = seeds[0].id[0]
    number = sum(seed.id.startswith(digit) for seed in seeds)
    with pytest.raises(InvalidArgument, match=rf"ids\[1\].*{number} ids begin with it"):
        lookup.get(database, [seeds[0].id, digit])


def test_an_answer_that_does_not_fit_is_refused(database: Database, make: Make) -> None:
    seed = make.seed()
    append(database, [seed])
    with pytest.raises(InvalidArgument, match="request fewer"):
        lookup.get(database, [seed.id], max_bytes=10)


def test_counts_go_by_kind_and_reason(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(3)]
    responses = [make.response(seed) for seed in seeds]
    failed = make.verdict(responses[0], sandbox_pb2.VERDICT_FAILED_ASSERTION)
    records = [
        *seeds,
        *responses,
        failed,
        *(make.verdict(response) for response in responses[1:]),
        make.rejection(seeds[0], pb.KIND_RESPONSE, attempt=1, reason="cut-off"),
        make.decision(seeds[0], "seed.no-return", kept=False),
        make.decision(seeds[1], "chosen"),
    ]
    append(database, records, collection="run")
    append(database, [make.seed(9)])
    expected = [
        Tally(pb.KIND_SEED, "", 0, 0, "", 3),
        Tally(pb.KIND_RESPONSE, "", 0, 0, "", 3),
        Tally(pb.KIND_VERDICT, "FAILED_ASSERTION", 0, 0, "", 1),
        Tally(pb.KIND_VERDICT, "PASSED", 0, 0, "", 2),
        Tally(pb.KIND_REJECTION, "cut-off", pb.KIND_RESPONSE, 0, "", 1),
        Tally(pb.KIND_DECISION, "chosen", 0, pb.Decision.OUTCOME_KEPT, "", 1),
        Tally(pb.KIND_DECISION, "seed.no-return", 0, pb.Decision.OUTCOME_DROPPED, "", 1),
    ]
    assert lookup.count(database, "run") == expected
    assert lookup.count(database)[0] == Tally(pb.KIND_SEED, "", 0, 0, "", 4)
    assert lookup.count(database, "nothing") == []
