"""Group commit: who waits, who is served, and what happens if a caller disconnects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import InvalidArgument, Unavailable
from codealign.common.records import complete
from codealign.dataset import writer as writer_module
from codealign.dataset.storage import lookup
from codealign.dataset.storage.append import carry_out
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.rows import entry
from codealign.dataset.storage.writes import Append, Join, Result, Write
from codealign.dataset.workers import Workers
from codealign.dataset.writer import MAX_GROUP, GroupWriter

if TYPE_CHECKING:
    from services.dataset.tests.conftest import Make


class Gate:
    """Carries out groups one by one when the test lets them through, and records their sizes."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.entered, self.opened = threading.Semaphore(0), threading.Semaphore(0)

    def carry_out(self, database: Database, writes: Sequence[Write]) -> list[Result]:
        self.groups.append(len(writes))
        self.entered.release()
        assert self.opened.acquire(timeout=30)
        return carry_out(database, writes)

    async def busy(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(writer_module, "carry_out", gate.carry_out)
    return gate


def total(database: Database) -> int:
    return sum(tally.records for tally in lookup.count(database))


async def test_what_arrives_during_a_transaction_shares_the_next(
    sqlite_database: Database, make: Make, gate: Gate
) -> None:
    workers = Workers(readers=1, writers=1)
    writer = GroupWriter(sqlite_database, workers)
    first = asyncio.create_task(writer.append(Append([entry(make.seed(0))])))
    await gate.busy()
    others = [asyncio.create_task(writer.append(Append([entry(make.seed(number))]))) for number in range(1, 40)]
    joining = asyncio.create_task(writer.join(Join([make.seed(0).id], "run")))
    await asyncio.sleep(0)
    gate.opened.release(2)
    results = [await task for task in (first, *others)]
    assert {item.outcome for (item,) in results} == {dataset_pb2.APPEND_OUTCOME_INSERTED}
    assert await joining == [make.seed(0)]
    assert gate.groups == [1, 40]
    workers.close()


async def test_a_caller_that_goes_away_before_its_turn_writes_nothing(
    sqlite_database: Database, make: Make, gate: Gate
) -> None:
    workers = Workers(readers=1, writers=1)
    writer = GroupWriter(sqlite_database, workers)
    tasks = [asyncio.create_task(writer.append(Append([entry(make.seed(0))])))]
    await gate.busy()
    tasks += [asyncio.create_task(writer.append(Append([entry(make.seed(number))]))) for number in (1, 2)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # started, so it is carried out
    tasks[1].cancel()  # not started, so it is dropped
    gate.opened.release(2)
    await tasks[2]
    found = lookup.get(sqlite_database, [make.seed(number).id for number in range(3)])
    assert found == [make.seed(0), make.seed(2)]
    workers.close()


async def test_a_group_is_bounded_but_a_large_request_is_carried_out(
    sqlite_database: Database, make: Make, gate: Gate
) -> None:
    workers = Workers(readers=1, writers=1)
    writer = GroupWriter(sqlite_database, workers)
    sizes = [1, MAX_GROUP // 2, MAX_GROUP // 2, 1, MAX_GROUP + 5]
    numbers = iter(range(sum(sizes)))
    writes = [Append([entry(make.seed(next(numbers))) for _ in range(size)]) for size in sizes]
    tasks = [asyncio.create_task(writer.append(writes[0]))]
    await gate.busy()
    tasks += [asyncio.create_task(writer.append(write)) for write in writes[1:]]
    gate.opened.release(4)
    await asyncio.gather(*tasks)
    assert gate.groups == [1, 2, 1, 1]
    assert total(sqlite_database) == sum(sizes)
    workers.close()


async def test_a_group_of_large_records_is_bounded_by_its_bytes(
    sqlite_database: Database, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_GROUP_BYTES", 1000)
    workers = Workers(readers=1, writers=1)
    writer = GroupWriter(sqlite_database, workers)
    prefixes = [
        complete(pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text=f"{number}" * 400)))
        for number in range(6)
    ]
    tasks = [asyncio.create_task(writer.append(Append([entry(prefixes[0])])))]
    await gate.busy()
    tasks += [asyncio.create_task(writer.append(Append([entry(prefix)]))) for prefix in prefixes[1:]]
    gate.opened.release(4)
    await asyncio.gather(*tasks)
    assert gate.groups == [1, 2, 2, 1]
    workers.close()


async def test_each_caller_gets_its_own_error_and_the_next_group_goes_on(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(readers=1, writers=1)
    writer = GroupWriter(database, workers)
    good, orphan = Append([entry(make.seed())]), Append([entry(make.concepts(make.seed(9)))])
    results = await asyncio.gather(writer.append(good), writer.append(orphan), return_exceptions=True)
    assert isinstance(results[0], list)
    assert isinstance(results[1], InvalidArgument)

    def away(*_: object) -> list[Result]:
        raise Unavailable("away")

    monkeypatch.setattr(writer_module, "carry_out", away)
    refused = await asyncio.gather(*(writer.append(good) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in refused] == [Unavailable] * 3
    monkeypatch.undo()
    assert (await writer.append(good))[0].outcome == dataset_pb2.APPEND_OUTCOME_EXISTED
    await asyncio.to_thread(workers.close)


async def test_who_waits_when_the_service_ends_is_told(sqlite_database: Database, make: Make, gate: Gate) -> None:
    workers = Workers(readers=1, writers=1)
    writer = GroupWriter(sqlite_database, workers)
    begun = asyncio.create_task(writer.append(Append([entry(make.seed(0))])))
    await gate.busy()
    waiting = asyncio.create_task(writer.append(Append([entry(make.seed(1))])))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(workers.close))
    while not workers._writers._shutdown:  # noqa: ASYNC110 - an executor announces nothing
        await asyncio.sleep(0)
    gate.opened.release(1)
    await closing
    assert len(await begun) == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        await waiting
