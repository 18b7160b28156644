"""The store client: batches, retries, and errors attributed to the records that cause them."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from codealign.coordinator.ground import batches
from codealign.coordinator.ground import store as module
from codealign.coordinator.ground.faults import INTERNAL_TRIES, RunFailed
from codealign.coordinator.ground.lease import Lease
from codealign.coordinator.ground.store import LeaseLost, RunStore
from codealign.coordinator.ground.waiting import Waiting
from fakes import FakeDataset
from fakes.virtual_time import LoopClock, in_virtual_time


def seed(number: int, size: int = 0) -> pb.Record:
    return pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=f"x = {number}" + "#" * size))


def concepts(parent: str) -> pb.Record:
    return pb.Record(kind=pb.KIND_CONCEPT_SET, parents=[parent], concept_set=pb.ConceptSet(concepts=["a"]))


def world() -> FakeDataset:
    return FakeDataset(LoopClock())


@in_virtual_time
async def test_appends_of_many_items_travel_together_and_the_collection_has_them() -> None:
    dataset = world()
    async with RunStore(dataset, "c") as store:
        kept = await asyncio.gather(*(store.append(seed(number)) for number in range(1200)))
        assert [record.seed.code for record in kept] == [f"x = {number}" for number in range(1200)]
    assert len(dataset.of_kind(pb.KIND_SEED, "c")) == 1200
    assert dataset.control.calls["append"] == 3
    assert dataset.control.most_in_flight["append"] == 1
    assert all(record.provenance.producer and record.provenance.HasField("created_at") for record in kept)


@in_virtual_time
async def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_BYTES", 10_000)
    dataset, sizes = world(), list[int]()

    def note(method: str, request: Message) -> None:
        sizes.append(request.ByteSize())

    dataset.control.before = note
    async with RunStore(dataset, "c") as store:
        await store.append_all([seed(number, 3000) for number in range(9)] + [seed(9, 20_000)])
    assert len(dataset.of_kind(pb.KIND_SEED)) == 10
    assert max(sizes[:-1]) < 11_000
    assert sizes[-1] > 20_000, "what is larger travels alone"


@in_virtual_time
async def test_look_ups_of_many_items_travel_together_and_leave_out_what_is_not_there() -> None:
    dataset = world()
    there = dataset.put(*(seed(number) for number in range(700)))
    ids = [record.id for record in there]
    missing = records.complete(seed(10_000)).id
    async with RunStore(dataset, "c") as store:
        found = await asyncio.gather(*(store.join([each, missing, each]) for each in ids))
        assert [list(each) for each in found] == [[each] for each in ids]
        assert dataset.control.calls["join"] == 3
        assert dataset.collections["c"] == set(ids)
        assert (await store.get([missing])) == {}
        assert (await store.get([])) == {}
        assert list(await store.get([ids[3], missing])) == [ids[3]]


@in_virtual_time
async def test_the_first_write_wins_and_comes_back() -> None:
    dataset = world()
    (parent,) = dataset.put(seed(0))
    async with RunStore(dataset) as store:
        first = await store.append(concepts(parent.id))
        other = concepts(parent.id)
        other.concept_set.concepts[:] = ["b"]
        assert await store.append(other) == first


@in_virtual_time
async def test_a_record_that_is_refused_is_an_error_of_that_record_alone() -> None:
    dataset = world()
    orphan = concepts("0" * 32)
    async with RunStore(dataset, "c") as store:
        results = await asyncio.gather(
            *(store.append(seed(number)) for number in range(50)),
            store.append(orphan),
            *(store.append(seed(number)) for number in range(50, 100)),
            return_exceptions=True,
        )
    assert isinstance(results[50], InvalidArgument)
    assert not any(isinstance(result, BaseException) for result in results[:50] + results[51:])
    assert len(dataset.of_kind(pb.KIND_SEED, "c")) == 100


@in_virtual_time
@pytest.mark.parametrize(
    "error", [DeadlineExceeded("no answer"), ResourceExhausted("the disk is full", retry_after=30.0)], ids=type
)
async def test_a_store_that_is_away_is_waited_for_and_said_so(error: Exception) -> None:
    dataset, waiting = world(), Waiting()
    dataset.control.away = error
    async with RunStore(dataset, "c", waiting=waiting) as store:
        appending = asyncio.create_task(store.append(seed(0)))
        reading = asyncio.create_task(store.count())
        await asyncio.sleep(1800)
        assert waiting.text.startswith("the dataset service, since ")
        assert waiting.text.endswith(str(error))
        dataset.control.come_back()
        back = asyncio.get_running_loop().time()
        await asyncio.gather(appending, reading)
        assert asyncio.get_running_loop().time() - back <= module.MAX_DELAY
        assert waiting.text == ""


@in_virtual_time
async def test_an_answer_that_was_lost_is_no_second_record() -> None:
    dataset, lost = world(), [True]

    def lose(method: str, request: Message) -> None:
        if lost:
            lost.pop()
            raise DeadlineExceeded("no answer")

    dataset.control.after = lose
    async with RunStore(dataset) as store:
        kept = await store.append(seed(0))
    assert dataset.of_kind(pb.KIND_SEED) == [kept]


@in_virtual_time
async def test_what_waiting_does_not_mend_fails_the_run() -> None:
    dataset = world()
    dataset.control.fail("append", PermissionDenied("coordinator may not call Append"))
    async with RunStore(dataset) as store:
        with pytest.raises(RunFailed, match="may not call"):
            await store.append(seed(0))
        dataset.control.fail("append", *[Internal("the file is damaged")] * INTERNAL_TRIES)
        with pytest.raises(RunFailed, match="damaged"):
            await store.append(seed(0))
        assert await store.append(seed(0))


@in_virtual_time
async def test_an_outage_that_ends_with_an_error_of_the_stores_own_is_no_reason_to_give_up() -> None:
    dataset = world()
    away = [Unavailable("connection refused", retry_after=0.0)] * (2 * INTERNAL_TRIES)
    dataset.control.fail("append", *away, Internal("it is starting"), *away, Internal("it is starting"))
    async with RunStore(dataset) as store:
        assert await store.append(seed(0))


@in_virtual_time
async def test_a_token_that_is_refused_ends_the_work() -> None:
    dataset = world()
    lease = (await dataset.acquire_lease(ds.AcquireLeaseRequest(name="run/1", holder="a"))).lease
    token = ds.LeaseToken(name=lease.name, token=lease.token)
    await asyncio.sleep(20)
    await dataset.acquire_lease(ds.AcquireLeaseRequest(name="run/1", holder="b"))
    async with RunStore(dataset, "c", token) as store:
        for call in (store.append(seed(0)), store.join([records.complete(seed(1)).id])):
            with pytest.raises(LeaseLost, match="token 1"):
                await call
    assert not dataset.of_kind(pb.KIND_SEED)


@in_virtual_time
async def test_a_lease_that_lapsed_is_acquired_again_where_nobody_took_it() -> None:
    dataset, waiting = world(), Waiting()
    lease = Lease(dataset, "run/1", "a", 15.0, waiting)
    assert await lease.acquire()
    async with RunStore(dataset, "c", lease, waiting) as store:
        await asyncio.sleep(20)
        await asyncio.gather(*(store.append(seed(number)) for number in range(3)), store.join(["0" * 32]))
        assert lease.token.token == 2
        await asyncio.sleep(20)
        await dataset.acquire_lease(ds.AcquireLeaseRequest(name="run/1", holder="b", ttl_seconds=1))
        await asyncio.sleep(5)
        with pytest.raises(LeaseLost, match="another coordinator"):
            await store.append(seed(4))
        with pytest.raises(LeaseLost):
            await store.append(seed(5))


@in_virtual_time
async def test_a_lease_that_another_holder_has_is_not_acquired_and_an_outage_is_told_apart() -> None:
    dataset = world()
    mine, other = (Lease(dataset, "run/1", name, 15.0, Waiting()) for name in "ab")
    assert await mine.acquire()
    assert not await other.acquire()
    dataset.control.go_away()
    with pytest.raises(Exception, match="connection refused"):
        await other.acquire()
    dataset.control.come_back()
    await mine.release()
    assert await other.acquire()


@in_virtual_time
async def test_closing_ends_what_waits() -> None:
    dataset = world()
    dataset.control.go_away()
    store = RunStore(dataset, "c")
    waits = [asyncio.create_task(store.append(seed(number))) for number in range(3)]
    await asyncio.sleep(10)
    await store.close()
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
