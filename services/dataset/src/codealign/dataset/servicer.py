"""DatasetService: converts between protobuf messages and domain objects."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from codealign.api.dataset.v1 import dataset_pb2 as wire
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceServicer
from codealign.common.errors import CodeAlignError, InvalidArgument
from codealign.dataset import checks
from codealign.dataset.metrics import APPENDED, PUBLISHED
from codealign.dataset.publishing.card import DEFAULT_PROMISE, PROMISES, Description
from codealign.dataset.publishing.publisher import Publisher
from codealign.dataset.settings import DatasetSettings
from codealign.dataset.storage import leases, lookup
from codealign.dataset.storage.browse import browse
from codealign.dataset.storage.catalogue import PublishedVersion
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.leases import Fence, Lease
from codealign.dataset.storage.lineage import lineage
from codealign.dataset.storage.scan import Lacking, Query, scan
from codealign.dataset.storage.writes import Append, Join
from codealign.dataset.workers import Workers
from codealign.dataset.writer import GroupWriter

_KIND_NAMES: dict[int, str] = {value: name.removeprefix("KIND_").lower() for name, value in pb.Kind.items()}
_OUTCOME_NAMES = {value: name.removeprefix("APPEND_OUTCOME_").lower() for name, value in wire.AppendOutcome.items()}


class DatasetServicer(DatasetServiceServicer):
    """Implements the gRPC service.

    Args:
        settings: Limits of requests and answers.
        database: The store of records.
        publisher: Publishes versions.
        workers: Threads for blocking work.
    """

    def __init__(self, settings: DatasetSettings, database: Database, publisher: Publisher, workers: Workers) -> None:
        self._settings = settings
        self._database = database
        self._publisher = publisher
        self._workers = workers
        self._writer = GroupWriter(database, workers)

    async def Append(self, request: wire.AppendRequest, context: Any) -> wire.AppendResponse:
        """Add records."""
        entries = checks.records(request.records, self._settings.max_record_bytes)
        collection = checks.name("collection", request.collection, required=False)
        results = await self._writer.append(Append(entries, collection, _optional_fence(request)))
        for (kind, outcome), number in Counter(
            (item.head.kind, result.outcome) for item, result in zip(entries, results, strict=True)
        ).items():
            APPENDED.labels(_KIND_NAMES[kind], _OUTCOME_NAMES[outcome]).inc(number)
        return wire.AppendResponse(
            results=[wire.AppendResult(id=item.id, outcome=item.outcome, kept=item.kept) for item in results]
        )

    async def Join(self, request: wire.JoinRequest, context: Any) -> wire.JoinResponse:
        """Add existing records to a collection."""
        write = Join(
            checks.ids(request.ids, allow_prefix=False),
            checks.name("collection", request.collection),
            _optional_fence(request),
            request.ids_only,
            self._settings.max_answer_bytes,
        )
        return wire.JoinResponse(records=await self._writer.join(write))

    async def Scan(self, request: wire.ScanRequest, context: Any) -> wire.ScanResponse:
        """Return a page of records."""
        lacking = None
        if request.HasField("lacks_child"):
            lacks = request.lacks_child
            lacking = Lacking(
                kind=checks.kind("lacks_child.kind", lacks.kind, required=True),
                stage_config_id=checks.optional_id("lacks_child.stage_config_id", lacks.stage_config_id),
                attempts=checks.amount("lacks_child.attempts", lacks.attempts, 1, 2**31 - 1),
            )
        query = Query(
            kind=checks.kind("kind", request.kind, required=False),
            collection=checks.name("collection", request.collection, required=False),
            stage_config_id=checks.optional_id("stage_config_id", request.stage_config_id),
            parent_id=checks.optional_id("parent_id", request.parent_id),
            lacking=lacking,
        )
        page = await self._workers.read(
            scan,
            self._database,
            query,
            after=checks.page_start(request),
            limit=checks.amount("page_size", request.page_size, checks.DEFAULT_PAGE, checks.MAX_PAGE),
            max_bytes=self._settings.max_answer_bytes,
        )
        token = "" if page.last else checks.page_token(request, page.records[-1].id)
        return wire.ScanResponse(records=page.records, next_page_token=token)

    async def Browse(self, request: wire.BrowseRequest, context: Any) -> wire.BrowseResponse:
        """Return a page of a collection's records, newest first."""
        view = checks.view(request)
        page = await self._workers.read(
            browse,
            self._database,
            view,
            before=checks.browse_start(request),
            limit=checks.amount("page_size", request.page_size, checks.DEFAULT_BROWSED, checks.MAX_BROWSED),
        )
        token = checks.browse_token(request, page.next) if page.next else ""
        return wire.BrowseResponse(records=page.records, next_page_token=token, examined=page.examined)

    async def Get(self, request: wire.GetRequest, context: Any) -> wire.GetResponse:
        """Return records by id."""
        ids = checks.ids(request.ids, allow_prefix=request.allow_prefix)
        found = await self._workers.read(lookup.get, self._database, ids, max_bytes=self._settings.max_answer_bytes)
        return wire.GetResponse(records=found)

    async def Count(self, request: wire.CountRequest, context: Any) -> wire.CountResponse:
        """Return the number of records and their total usage, by kind."""
        collection = checks.name("collection", request.collection, required=False)
        tallies = await self._workers.read(lookup.count, self._database, collection)
        return wire.CountResponse(
            counts=[
                wire.RecordCount(
                    kind=pb.Kind.ValueType(tally.kind),
                    label=tally.label,
                    rejected_kind=pb.Kind.ValueType(tally.rejected_kind),
                    outcome=pb.Decision.Outcome.ValueType(tally.outcome),
                    count=tally.records,
                    stage_config_id=tally.stage_config_id,
                    prompt_tokens=tally.prompt_tokens,
                    cached_prompt_tokens=tally.cached_prompt_tokens,
                    generated_tokens=tally.generated_tokens,
                    seconds=tally.seconds,
                    unknown_prompt_tokens=tally.unknown_prompt_tokens,
                )
                for tally in tallies
            ]
        )

    async def Lineage(self, request: wire.LineageRequest, context: Any) -> wire.LineageResponse:
        """Return the ancestors and descendants of a record."""
        direction = request.direction or wire.DIRECTION_BOTH
        if direction not in wire.Direction.values():
            raise InvalidArgument("direction", f"{direction} is not a known direction")
        found = await self._workers.read(
            lineage,
            self._database,
            checks.prefix("id", request.id),
            ancestors=direction in (wire.DIRECTION_ANCESTORS, wire.DIRECTION_BOTH),
            descendants=direction in (wire.DIRECTION_DESCENDANTS, wire.DIRECTION_BOTH),
            collection=checks.name("collection", request.collection, required=False),
            limit=checks.amount("limit", request.limit, checks.DEFAULT_LINEAGE, checks.MAX_LINEAGE),
            max_bytes=self._settings.max_answer_bytes,
        )
        return wire.LineageResponse(records=found.records, references=found.references, truncated=found.truncated)

    async def ListCollections(self, request: wire.ListCollectionsRequest, context: Any) -> wire.ListCollectionsResponse:
        """Return the collections with their sizes."""
        found = await self._workers.read(lookup.collections, self._database)
        return wire.ListCollectionsResponse(
            collections=[wire.Collection(name=name, records=size) for name, size in found]
        )

    async def PublishVersion(self, request: wire.PublishVersionRequest, context: Any) -> wire.PublishVersionResponse:
        """Publish a version."""
        collection = checks.name("collection", request.collection)
        promise = request.promise or DEFAULT_PROMISE
        if promise not in PROMISES:
            raise InvalidArgument("promise", f"is {promise!r}; must be one of {', '.join(PROMISES)}")
        about = Description(
            title=checks.text("title", request.title, checks.MAX_TITLE),
            promise=promise,
            facts=checks.facts("facts", dict(request.facts)),
        )
        admitted = checks.admitted(request.verdicts, request.not_executed)
        cancelled = threading.Event()

        def check_cancelled() -> None:
            if cancelled.is_set():
                raise CodeAlignError("the caller disconnected")

        try:
            version, existed = await self._workers.publish(
                self._publisher.publish, collection, about, admitted, check_cancelled
            )
        finally:
            cancelled.set()
        if not existed:
            PUBLISHED.inc(version.rows)
        return wire.PublishVersionResponse(version=self._version(version), existed=existed)

    async def GetVersion(self, request: wire.GetVersionRequest, context: Any) -> wire.GetVersionResponse:
        """Return a version by name."""
        version = await self._workers.read(self._publisher.get, checks.name("name", request.name))
        return wire.GetVersionResponse(version=self._version(version))

    async def ListVersions(self, request: wire.ListVersionsRequest, context: Any) -> wire.ListVersionsResponse:
        """Return every version, newest first."""
        versions = await self._workers.read(self._publisher.all_versions)
        return wire.ListVersionsResponse(versions=[self._version(version) for version in versions])

    async def Export(self, request: wire.ExportRequest, context: Any) -> AsyncIterator[wire.ExportResponse]:
        """Stream a version's rows."""
        name = checks.name("version", request.version)
        exports = {
            wire.EXPORT_FORMAT_UNSPECIFIED: self._publisher.export_jsonl,
            wire.EXPORT_FORMAT_JSONL: self._publisher.export_jsonl,
            wire.EXPORT_FORMAT_PARQUET: self._publisher.export_parquet,
        }
        if request.format not in exports:
            raise InvalidArgument("format", f"{request.format} is not a supported format")
        async with contextlib.aclosing(self._workers.stream(exports[request.format](name))) as pieces:
            async for piece in pieces:
                yield wire.ExportResponse(data=piece)

    async def AcquireLease(self, request: wire.AcquireLeaseRequest, context: Any) -> wire.AcquireLeaseResponse:
        """Acquire a lease."""
        name, holder = checks.name("name", request.name), checks.name("holder", request.holder)
        ttl = checks.ttl("ttl_seconds", request.ttl_seconds)
        lease = await self._workers.write(leases.acquire, self._database, name, holder, ttl)
        return wire.AcquireLeaseResponse(lease=_lease(lease))

    async def RenewLease(self, request: wire.RenewLeaseRequest, context: Any) -> wire.RenewLeaseResponse:
        """Renew a lease."""
        fence, ttl = _fence("lease", request.lease), checks.ttl("ttl_seconds", request.ttl_seconds)
        lease = await self._workers.write(leases.renew, self._database, fence, ttl)
        return wire.RenewLeaseResponse(lease=_lease(lease))

    async def ReleaseLease(self, request: wire.ReleaseLeaseRequest, context: Any) -> wire.ReleaseLeaseResponse:
        """Release a lease."""
        await self._workers.write(leases.release, self._database, _fence("lease", request.lease))
        return wire.ReleaseLeaseResponse()

    def _version(self, version: PublishedVersion) -> wire.Version:
        return wire.Version(
            name=version.name,
            title=version.title,
            url=self._publisher.url(version.name),
            rows=version.rows,
            files=[
                wire.VersionFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes)
                for file in version.files
            ],
            created_at=_timestamp(version.created_at),
            collection=version.collection,
        )


def _fence(path: str, token: wire.LeaseToken) -> Fence:
    return Fence(checks.name(f"{path}.name", token.name), token.token)


def _optional_fence(request: wire.AppendRequest | wire.JoinRequest) -> Fence | None:
    return _fence("lease", request.lease) if request.HasField("lease") else None


def _lease(lease: Lease) -> wire.Lease:
    return wire.Lease(name=lease.name, holder=lease.holder, token=lease.token, expires_at=_timestamp(lease.expires_at))


def _timestamp(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(seconds * 1e6))
    return timestamp
