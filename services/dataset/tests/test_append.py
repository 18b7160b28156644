"""Appending records."""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from codealign.api.dataset.v1 import dataset_pb2 as wire
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError, InvalidArgument, Unavailable
from codealign.common.records import complete
from codealign.dataset import checks
from codealign.dataset.storage import leases, lookup
from codealign.dataset.storage.append import append, carry_out
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.leases import Fence
from codealign.dataset.storage.rows import entry
from codealign.dataset.storage.scan import Query, scan
from codealign.dataset.storage.writes import Append, Join

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make

INSERTED = wire.APPEND_OUTCOME_INSERTED
EXISTED = wire.APPEND_OUTCOME_EXISTED
CONFLICT = wire.APPEND_OUTCOME_CONFLICT


def total(database: Database, collection: str = "") -> int:
    return sum(tally.records for tally in lookup.count(database, collection))


def refusal(result: object) -> str:
    assert isinstance(result, CodeAlignError), result
    return result.message


def test_records_come_back_as_they_were_sent(database: Database, make: Make) -> None:
    records = make.chain()
    records[3].provenance.model = "nano"
    records[3].provenance.created_at.GetCurrentTime()
    results = append(database, records)
    assert [item.outcome for item in results] == [INSERTED] * len(records)
    assert lookup.get(database, [record.id for record in records]) == records


@pytest.mark.parametrize(
    ("origin", "path"),
    [
        (pb.Provenance(seconds=math.nan), "seconds"),
        (pb.Provenance(seconds=math.inf), "seconds"),
        (pb.Provenance(seconds=-1.0), "seconds"),
        (pb.Provenance(created_at=Timestamp(seconds=10**15)), "created_at"),
        (pb.Provenance(created_at=Timestamp(seconds=-(10**15))), "created_at"),
        (pb.Provenance(created_at=Timestamp(seconds=1, nanos=10**9)), "created_at"),
    ],
)
def test_a_time_that_is_none_is_refused_and_named(make: Make, origin: pb.Provenance, path: str) -> None:
    seed = make.seed()
    seed.provenance.CopyFrom(origin)
    with pytest.raises(InvalidArgument) as caught:
        checks.records([seed], 10**6)
    assert [found for found, _ in caught.value.violations] == [f"records[0].provenance.{path}"]


def test_an_empty_body_stays_a_body(database: Database) -> None:
    record = complete(pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix()))
    append(database, [record])
    assert lookup.get(database, [record.id])[0].WhichOneof("body") == "prompt_prefix"


def test_appending_twice_is_appending_once(database: Database, make: Make) -> None:
    records = make.chain()
    append(database, records, collection="run")
    results = append(database, records, collection="run")
    assert {item.outcome for item in results} == {EXISTED}
    assert all(item.kept is None for item in results)
    assert total(database) == total(database, "run") == len(records)


def test_what_is_kept_comes_back_when_only_the_provenance_differs(database: Database, make: Make) -> None:
    first, again = make.seed(), make.seed()
    first.provenance.engine = "vllm"
    again.provenance.engine = "hf"
    append(database, [first])
    (result,) = append(database, [again])
    assert result.outcome == EXISTED
    assert result.kept == first


def test_the_first_write_wins_over_other_content(database: Database, make: Make) -> None:
    seed = make.seed()
    first, other = make.concepts(seed, words="sums"), make.concepts(seed, words="loops")
    assert first.id == other.id
    append(database, [seed, first])
    (result,) = append(database, [other], collection="run")
    assert result.outcome == CONFLICT
    assert result.kept == first
    assert lookup.get(database, [first.id]) == [first]
    assert total(database, "run") == 1


def test_a_request_may_hold_a_record_twice(database: Database, make: Make) -> None:
    seed = make.seed()
    first, other = make.concepts(seed, words="sums"), make.concepts(seed, words="loops")
    results = append(database, [seed, first, seed, other, first], collection="run")
    assert [item.outcome for item in results] == [INSERTED, INSERTED, EXISTED, CONFLICT, EXISTED]
    assert results[3].kept == first
    assert total(database) == total(database, "run") == 2


def test_a_missing_parent_is_named_and_nothing_is_added(database: Database, make: Make) -> None:
    chain, orphan = make.chain(), make.concepts(make.seed(99))
    with pytest.raises(InvalidArgument) as caught:
        append(database, [*chain, orphan], collection="run")
    assert caught.value.violations[0][0] == "records[6].parents[0]"
    assert total(database) == total(database, "run") == 0


def test_a_parent_must_not_stand_later_in_the_list(database: Database, make: Make) -> None:
    seed = make.seed()
    child = make.concepts(seed)
    with pytest.raises(InvalidArgument, match=r"records\[0\].parents\[0\]"):
        append(database, [child, seed])
    append(database, [seed])
    assert [item.outcome for item in append(database, [child, seed])] == [INSERTED, EXISTED]


def test_existing_records_join_further_collections(database: Database, make: Make) -> None:
    records = make.chain()
    append(database, records, collection="one")
    append(database, records[:2], collection="two")
    append(database, records[:3], collection="two")
    assert lookup.collections(database) == [("one", 6), ("two", 3)]


def test_concurrent_appends_of_the_same_records_insert_each_once(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(60)]
    records = [*seeds, *(make.concepts(seed) for seed in seeds)]

    def add(order: int) -> list[int]:
        # Each thread uses another order, which would deadlock in PostgreSQL if the rows were not sorted.
        parents, children = seeds[:], records[len(seeds) :]
        random.Random(order).shuffle(parents)
        random.Random(order).shuffle(children)
        outcomes = []
        for start in range(0, len(seeds), 20):
            outcomes += append(database, parents[start : start + 20], collection="run")
        outcomes += append(database, children, collection="run")
        return [item.outcome for item in outcomes]

    with ThreadPoolExecutor(6) as pool:
        outcomes = [outcome for result in pool.map(add, range(6)) for outcome in result]
    assert outcomes.count(INSERTED) == len(records)
    assert outcomes.count(EXISTED) == 5 * len(records)
    assert total(database) == total(database, "run") == len(records)


def test_ten_thousand_records_go_in_and_come_out(database: Database, make: Make) -> None:
    seeds = [make.seed(number) for number in range(2000)]
    children = [make.response(seed, attempt) for seed in seeds for attempt in range(4)]
    for start in range(0, 2000, 1000):
        append(database, seeds[start : start + 1000], collection="run")
    for start in range(0, 8000, 1000):
        append(database, children[start : start + 1000], collection="run")
    assert total(database, "run") == 10_000
    found: list[str] = []
    after = ""
    while True:
        page = scan(database, Query(kind=pb.KIND_RESPONSE, collection="run"), after=after, limit=1000)
        found += [record.id for record in page.records]
        if page.last:
            break
        after = page.records[-1].id
    assert found == sorted(record.id for record in children)


def test_what_fails_late_leaves_nothing_of_the_request(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("late")

    monkeypatch.setattr("codealign.dataset.storage.append._tally", fail)
    with pytest.raises(RuntimeError, match="late"):
        append(database, make.chain(), collection="run")
    monkeypatch.undo()
    assert lookup.get(database, [record.id for record in make.chain()]) == []
    assert {item.outcome for item in append(database, make.chain(), collection="run")} == {INSERTED}


def test_records_that_differ_in_their_key_alone_are_two(database: Database, make: Make) -> None:
    prefix, config = make.prefix(), make.config("sampling")
    one, two = (make.completion(prefix, config.id, seed=seed) for seed in (1, 2))
    assert one.id != two.id
    assert {item.outcome for item in append(database, [prefix, config, one, two])} == {INSERTED}
    assert lookup.get(database, [one.id, two.id]) == [one, two]


def asking(records: list[pb.Record], collection: str = "run", fence: Fence | None = None) -> Append:
    return Append([entry(record) for record in records], collection, fence)


def test_a_request_that_is_refused_touches_no_other_of_its_group(database: Database, make: Make) -> None:
    lease = leases.acquire(database, "run", "one", 60)
    chains = [make.chain(number) for number in range(3)]
    results = carry_out(
        database,
        [
            asking(chains[0], fence=Fence("run", lease.token)),
            asking([*chains[1], make.concepts(make.seed(99))]),
            asking(chains[2], fence=Fence("run", lease.token + 1)),
            Join([chains[0][0].id], "other", Fence("run", lease.token + 1)),
            asking([make.concepts(chains[1][0], attempt=1)]),  # its parent is refused with the second
            asking([make.concepts(chains[0][0], attempt=1)]),  # its parent is the first's
        ],
    )
    assert isinstance(results[0], list)
    assert isinstance(results[5], list)
    assert [item.outcome for item in [*results[0], *results[5]]] == [INSERTED] * 7
    assert "records[6].parents[0]" in refusal(results[1])
    assert "is not held" in refusal(results[2])
    assert "is not held" in refusal(results[3])
    assert "records[0].parents[0]" in refusal(results[4])
    assert total(database) == total(database, "run") == 7
    assert total(database, "other") == 0


def test_requests_of_a_group_insert_a_record_once_and_the_first_wins(database: Database, make: Make) -> None:
    seed = make.seed()
    first, other = make.concepts(seed, words="sums"), make.concepts(seed, words="loops")
    group = [asking([seed, first], "one"), asking([seed, other], "two"), asking([first], "one")]
    results = carry_out(database, group)
    assert [[item.outcome for item in result] for result in results] == [  # type: ignore[union-attr]
        [INSERTED, INSERTED],
        [EXISTED, CONFLICT],
        [EXISTED],
    ]
    assert results[1][1].kept == first  # type: ignore[index, union-attr]
    assert lookup.collections(database) == [("one", 2), ("two", 2)]
    assert total(database) == 2


def test_what_the_database_refuses_of_one_request_is_not_the_others_fault(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codealign.dataset.storage import bulk

    good, odd = make.seed(1), make.seed(2)
    insert = bulk.insert_if_new

    def refuse(connection: object, table: object, rows: list[tuple[object, ...]], key: str) -> set[str]:
        if odd.id in {row[0] for row in rows}:
            raise RuntimeError("odd")
        return insert(connection, table, rows, key)  # type: ignore[arg-type]

    monkeypatch.setattr(bulk, "insert_if_new", refuse)
    results = carry_out(database, [asking([good]), asking([odd]), asking([make.seed(3)])])
    assert [type(result) for result in results] == [list, RuntimeError, list]
    assert total(database) == total(database, "run") == 2


def test_a_group_that_the_database_was_away_for_is_not_tried_one_by_one(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def away(_: object) -> None:
        tries.append(1)
        raise Unavailable("away")

    monkeypatch.setattr(database, "write", away)
    with pytest.raises(Unavailable):
        carry_out(database, [asking([make.seed(number)]) for number in range(5)])
    assert len(tries) == 1
