"""The dataset service as a run sees it: appends that travel in batches, and look-ups by id."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp

from codealign.api.dataset.v1 import dataset_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.clients import Clients, RetryPolicy

MAX_BATCH = 200
PAGE = 500
PATIENT = RetryPolicy(attempts=0)
"""A store that is away is waited for: a run's data is safe there, and nothing else can be done."""

try:
    PRODUCER = f"codealign-coordinator {version('codealign-coordinator')}"
except PackageNotFoundError:
    PRODUCER = "codealign-coordinator"


class RunStore:
    """Appends for one run, into the collection of its id, under its lease."""

    def __init__(self, clients: Clients, collection: str, lease: api.LeaseToken | None = None) -> None:
        self._clients = clients
        self.collection = collection
        self.lease = lease
        self._queue: asyncio.Queue[tuple[pb.Record, asyncio.Future[pb.Record]]] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def flushing(self) -> AsyncIterator[Self]:
        """The store itself; appends are served inside this context."""
        task = asyncio.create_task(self._flush_for_ever())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def append(self, record: pb.Record) -> pb.Record:
        """Add one record and return what the store keeps: the first write wins."""
        record.provenance.producer = record.provenance.producer or PRODUCER
        if not record.provenance.HasField("created_at"):
            now = Timestamp()
            now.GetCurrentTime()
            record.provenance.created_at.CopyFrom(now)
        future: asyncio.Future[pb.Record] = asyncio.get_running_loop().create_future()
        await self._queue.put((records.complete(record), future))
        return await future

    async def append_all(self, items: Iterable[pb.Record]) -> list[pb.Record]:
        """Add several; each record's parents must be in the store already or come earlier in `items`."""
        return list(await asyncio.gather(*(self.append(item) for item in items)))

    async def _flush_for_ever(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                kept = await self._append([record for record, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), record in zip(batch, kept, strict=True):
                if not future.done():
                    future.set_result(record)

    async def _append(self, batch: Sequence[pb.Record]) -> list[pb.Record]:
        request = api.AppendRequest(records=batch, collection=self.collection, lease=self.lease)
        response = await self._clients.call(self._clients.dataset.Append, request, retry=PATIENT)
        return [
            result.kept if result.HasField("kept") else record
            for record, result in zip(batch, response.results, strict=True)
        ]

    async def get(self, ids: Sequence[str]) -> dict[str, pb.Record]:
        """Those of the records that are there."""
        response = await self._clients.call(self._clients.dataset.Get, api.GetRequest(ids=ids), retry=PATIENT)
        return {record.id: record for record in response.records}

    async def adopt(self, ids: Sequence[str]) -> dict[str, pb.Record]:
        """`get`, and what is there becomes part of the run: another run may have made it."""
        found = await self.get(ids)
        if found:
            await self.append_all(found.values())
        return found

    async def scan(self, request: api.ScanRequest) -> AsyncIterator[pb.Record]:
        """Every record of a scan, page by page."""
        request.page_size = PAGE
        while True:
            response = await self._clients.call(self._clients.dataset.Scan, request, retry=PATIENT)
            for record in response.records:
                yield record
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def count(self) -> list[api.StageCount]:
        """The run's records, by stage and label."""
        request = api.CountRequest(collection=self.collection)
        response = await self._clients.call(self._clients.dataset.Count, request, retry=PATIENT)
        return list(response.counts)
