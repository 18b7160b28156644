"""The fake store enforces the real store's rules, which tests of runs and controllers depend on."""

from __future__ import annotations

import pytest

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import FailedPrecondition, InvalidArgument, Unavailable
from fakes import FakeServices

SEED = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="def f(x): return x")))


def concepts(attempt: int, *terms: str) -> pb.Record:
    body = pb.ConceptSet(concepts=terms)
    return pb.Record(kind=pb.KIND_CONCEPT_SET, parents=[SEED.id], attempt=attempt, concept_set=body)


async def test_the_first_write_wins_and_parents_must_be_there() -> None:
    dataset = FakeServices().dataset
    with pytest.raises(InvalidArgument, match=r"records\[0\]\.parents\[0\]"):
        await dataset.append(ds.AppendRequest(records=[concepts(0, "a")]))
    assert not dataset.records
    await dataset.append(ds.AppendRequest(records=[SEED, concepts(0, "a")], collection="one"))
    answer = await dataset.append(ds.AppendRequest(records=[concepts(0, "b")], collection="two"))
    assert answer.results[0].outcome == ds.APPEND_OUTCOME_CONFLICT
    assert list(answer.results[0].kept.concept_set.concepts) == ["a"]
    assert [record.kind for record in dataset.of_kind(pb.KIND_CONCEPT_SET, "two")] == [pb.KIND_CONCEPT_SET]
    with pytest.raises(InvalidArgument, match="is 0000"):
        await dataset.append(ds.AppendRequest(records=[pb.Record(id="0" * 32, kind=pb.KIND_SEED, seed=SEED.seed)]))


async def test_joining_gives_what_is_there_and_makes_it_a_member() -> None:
    dataset = FakeServices().dataset
    dataset.put(SEED, collection="seeds")
    request = ds.JoinRequest(collection="run", ids=["f" * 32, SEED.id])
    assert [record.seed for record in (await dataset.join(request)).records] == [SEED.seed]
    assert dataset.of_kind(pb.KIND_SEED, "run")


async def test_a_scan_gives_every_record_once_in_pages() -> None:
    dataset = FakeServices().dataset
    dataset.put(SEED, *(concepts(attempt, "a") for attempt in range(5)))
    request, found = ds.ScanRequest(kind=pb.KIND_CONCEPT_SET, page_size=2), []
    while True:
        page = await dataset.scan(request)
        found += [record.id for record in page.records]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == sorted(found)
    assert len(set(found)) == len(found) == 5


async def test_a_lease_is_one_holders_until_it_expires() -> None:
    dataset = FakeServices().dataset

    async def acquire(holder: str) -> ds.Lease:
        return (await dataset.acquire_lease(ds.AcquireLeaseRequest(name="run/1", holder=holder, ttl_seconds=5))).lease

    lease = await acquire("a")
    token = ds.LeaseToken(name=lease.name, token=lease.token)
    with pytest.raises(Unavailable, match=r"held by a for another 5\.0 s"):
        await acquire("b")
    dataset.clock.advance(6)
    with pytest.raises(FailedPrecondition, match="expired"):
        await dataset.renew_lease(ds.RenewLeaseRequest(lease=token))
    assert (await acquire("b")).token > lease.token
    with pytest.raises(FailedPrecondition, match="is not held with token"):
        await dataset.append(ds.AppendRequest(records=[SEED], lease=token))
    await dataset.release_lease(ds.ReleaseLeaseRequest(lease=token))
    assert dataset.holder("run/1") == "b"


async def test_a_service_that_is_away_answers_nothing_and_an_answer_can_be_lost() -> None:
    dataset = FakeServices().dataset
    dataset.control.go_away()
    with pytest.raises(Unavailable, match="cannot reach the dataset service"):
        await dataset.append(ds.AppendRequest(records=[SEED]))
    assert not dataset.records
    dataset.control.come_back()

    def lose(method: str, request: object) -> None:
        raise Unavailable("connection reset")

    dataset.control.after = lose
    with pytest.raises(Unavailable, match="reset"):
        await dataset.append(ds.AppendRequest(records=[SEED]))
    assert SEED.id in dataset.records
