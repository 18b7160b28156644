"""A run's client of the dataset service. Appends and lookups of all items are batched.

A batch is sent as soon as the previous call has returned, so a fast store gets small batches and a slow one large
batches. If the store is unavailable, calls wait for it without limit: the data is safe there, and nothing else can be
done. `waiting.text` reports the outage. If the store refuses a record, only that record fails, not the others in its
batch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, Self, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from codealign.api.dataset.v1 import dataset_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records, traces
from codealign.common.errors import (
    CodeAlignError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
)
from codealign.common.logs import get_logger
from codealign.coordinator.ground.batches import Batches
from codealign.coordinator.ground.faults import INTERNAL_TRIES, TRANSIENT, RunFailed
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.waiting import Waiting

log = get_logger(__name__)
T = TypeVar("T")

PAGE = 500
MAX_DELAY = 5.0
"""Maximum seconds between tries, even if the store requested more: a full disk may have room again sooner."""
LOGGED_TRIES = 30
"""Interval of logged tries: an outage may last for hours."""
STORE = "the dataset service"

try:
    PRODUCER = f"codealign-coordinator {version('codealign-coordinator')}"
except PackageNotFoundError:
    PRODUCER = "codealign-coordinator"


class LeaseLost(Exception):
    """Another coordinator has or had the lease: this one's work ends, and nothing more of it is recorded."""


class Fence(Protocol):
    """A lease that its holder keeps for as long as possible."""

    @property
    def token(self) -> api.LeaseToken:
        """The token for appends.

        Raises:
            LeaseLost: The lease is lost.
        """

    async def regain(self, refused: api.LeaseToken) -> None:
        """Replace a token that the store refused by a newer one.

        Raises:
            LeaseLost: Another holder has the lease or had it in the meantime.
        """


async def patiently(call: Callable[[], Awaitable[T]], waiting: Waiting) -> T:
    """Call the store, and retry while the store is unavailable.

    Args:
        call: Makes one try.
        waiting: Records that the store is unavailable.

    Raises:
        CodeAlignError: An error that waiting does not resolve.
    """
    tried = faults = 0
    while True:
        tried += 1
        try:
            result = await call()
        except (*TRANSIENT, Internal) as error:
            faults += isinstance(error, Internal)  # outages say nothing about the request, so they do not count
            if isinstance(error, Internal) and faults >= INTERNAL_TRIES:
                raise
            waiting.begin(STORE, error.message)
            asked = getattr(error, "retry_after", 1.0)
            delay = max(0.05, min(asked, MAX_DELAY)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            if tried % LOGGED_TRIES == 1:
                log.warning("store_away", tried=tried, message=error.message)
            await asyncio.sleep(delay)
        else:
            waiting.end(STORE)
            return result


class RunStore:
    """The records of one collection, under a lease. Close it (`async with`) when the work has ended.

    Every method waits while the store is unavailable. It raises `LeaseLost` if the lease is lost, `InvalidArgument` if
    the store refuses one record, and `RunFailed` for any other error that waiting does not resolve.

    Args:
        dataset: The store.
        collection: Collection for appended and joined records: a run's id. Empty: none.
        lease: Its token accompanies every append and join. None: no token.
        waiting: Records that the store is unavailable.
    """

    def __init__(
        self,
        dataset: Dataset,
        collection: str = "",
        lease: Fence | api.LeaseToken | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self._dataset, self.collection, self._lease = dataset, collection, lease
        self.waiting = waiting or Waiting()
        self._appends = Batches(self._append, pb.Record.ByteSize)
        self._joins = Batches(self._join, len)
        self._gets = Batches(self._get, len)

    async def append(self, record: pb.Record) -> pb.Record:
        """Add one record, filling in id, producer and time, and return the stored record: the first write wins."""
        stamped = _stamped(record)
        with traces.span("append", {"record": stamped.id, "kind": records.BODY_OF_KIND[stamped.kind]}):
            return await self._appends.put(stamped)

    async def append_all(self, items: Iterable[pb.Record]) -> list[pb.Record]:
        """Add several records; each record's parents must be in the store already or earlier in `items`."""
        return await self._appends.all([_stamped(item) for item in items])

    async def join(self, ids: Iterable[str]) -> dict[str, pb.Record]:
        """Add existing records to the collection and return them by id; missing ones are left out."""
        return await _found(self._joins, ids)

    async def get(self, ids: Iterable[str]) -> dict[str, pb.Record]:
        """Return existing records by id; missing ones are left out."""
        return await _found(self._gets, ids)

    async def scan(self, request: api.ScanRequest) -> AsyncIterator[pb.Record]:
        """Yield all records of a scan in the order of their ids, page by page."""
        page = api.ScanRequest()
        page.CopyFrom(request)
        page.page_size = page.page_size or PAGE
        while True:
            response = await self._patiently(lambda: self._dataset.scan(page))
            for record in response.records:
                yield record
            if not response.next_page_token:
                return
            page.page_token = response.next_page_token

    async def count(self) -> list[api.RecordCount]:
        """Return the collection's record counts and resources used, by kind, configuration and label."""
        request = api.CountRequest(collection=self.collection)
        return list((await self._patiently(lambda: self._dataset.count(request))).counts)

    async def publish(self, request: api.PublishVersionRequest) -> api.PublishVersionResponse:
        """Write a version. May take an hour."""
        return await self._patiently(lambda: self._dataset.publish_version(request))

    async def close(self) -> None:
        """Stop sending; items still queued are cancelled."""
        for batches in (self._appends, self._joins, self._gets):
            await batches.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _append(self, batch: Sequence[pb.Record]) -> list[pb.Record]:
        async def call(token: api.LeaseToken | None) -> api.AppendResponse:
            return await self._dataset.append(api.AppendRequest(records=batch, collection=self.collection, lease=token))

        response = await self._fenced(call)
        return [
            result.kept if result.HasField("kept") else record
            for record, result in zip(batch, response.results, strict=True)
        ]

    async def _join(self, ids: Sequence[str]) -> list[pb.Record | None]:
        async def call(token: api.LeaseToken | None) -> api.JoinResponse:
            return await self._dataset.join(api.JoinRequest(ids=_once(ids), collection=self.collection, lease=token))

        found = {record.id: record for record in (await self._fenced(call)).records}
        return [found.get(record_id) for record_id in ids]

    async def _get(self, ids: Sequence[str]) -> list[pb.Record | None]:
        response = await self._patiently(lambda: self._dataset.get(api.GetRequest(ids=_once(ids))))
        found = {record.id: record for record in response.records}
        return [found.get(record_id) for record_id in ids]

    async def _fenced(self, call: Callable[[api.LeaseToken | None], Awaitable[T]]) -> T:
        """Make a call under the lease. If its token is refused, repeat the call with a newer one."""
        refused = 0
        while True:
            lease = self._lease
            token = lease if lease is None or isinstance(lease, api.LeaseToken) else lease.token
            try:
                return await patiently(lambda token=token: call(token), self.waiting)  # type: ignore[misc]
            except (FailedPrecondition, NotFound) as error:
                refused += 1
                if token is None or refused >= INTERNAL_TRIES:
                    raise RunFailed(error.message) from error
                if lease is None or isinstance(lease, api.LeaseToken):
                    raise LeaseLost(error.message) from error
                await lease.regain(token)
            except InvalidArgument:
                raise
            except CodeAlignError as error:
                raise RunFailed(error.message) from error

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await patiently(call, self.waiting)
        except InvalidArgument:
            raise
        except CodeAlignError as error:
            raise RunFailed(error.message) from error


def _stamped(record: pb.Record) -> pb.Record:
    provenance = record.provenance
    provenance.producer = provenance.producer or PRODUCER
    if not provenance.HasField("created_at"):
        now = Timestamp()
        now.GetCurrentTime()
        provenance.created_at.CopyFrom(now)
    return records.complete(record)


def _once(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


async def _found(batches: Batches[str, pb.Record | None], ids: Iterable[str]) -> dict[str, pb.Record]:
    wanted = _once(list(ids))
    found = await batches.all(wanted)
    return {record_id: record for record_id, record in zip(wanted, found, strict=True) if record is not None}
