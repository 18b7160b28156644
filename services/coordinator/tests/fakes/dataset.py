"""In-memory record store that enforces the real store's rules."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from fakes.control import Clock, Control

_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f]{6,32}")
_MOST = 1000
_DEFAULT_TTL_SECONDS = 15.0


class FakeDataset:
    """Records, collections, leases and versions.

    Calls return copies, as over a network, so callers cannot change the stored records.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.control = Control("dataset")
        self.clock = clock or Clock()
        self.records: dict[str, pb.Record] = {}
        self.collections: dict[str, set[str]] = defaultdict(set)
        self.versions: dict[str, list[pb.Record]] = {}
        """Example records of each version, by version name."""
        self.published: list[ds.PublishVersionRequest] = []
        self.appended = 0
        """Number of records sent, including existing ones."""
        self._children: dict[str, list[str]] = defaultdict(list)
        self._leases: dict[str, ds.Lease] = {}

    def of_kind(self, kind: pb.Kind.ValueType, collection: str = "") -> list[pb.Record]:
        """Return the records of a kind in id order, for assertions."""
        return [record for record in self._of(collection) if record.kind == kind]

    def put(self, *given: pb.Record, collection: str = "") -> list[pb.Record]:
        """Append without counting a call, for test setup."""
        for start in range(0, len(given), _MOST):
            batch = [records.complete(record) for record in given[start : start + _MOST]]
            self._append(ds.AppendRequest(records=batch, collection=collection))
        return list(given)

    async def append(self, request: ds.AppendRequest) -> ds.AppendResponse:
        """Add all records or none."""
        async with self.control.call("append", request):
            return self._append(request)

    def _append(self, request: ds.AppendRequest) -> ds.AppendResponse:
        if request.HasField("lease"):
            self._require_held(request.lease)
        if len(request.records) > _MOST:
            raise InvalidArgument("records", f"{len(request.records)} records; at most {_MOST} in one call")
        given = [self._checked(index, record) for index, record in enumerate(request.records)]
        earlier: set[str] = set()
        for index, record in enumerate(given):
            for position, parent in enumerate(record.parents):
                if parent not in self.records and parent not in earlier:
                    path = f"records[{index}].parents[{position}]"
                    raise InvalidArgument(path, f"{parent} is neither stored nor earlier in this list")
            earlier.add(record.id)
        self.appended += len(given)
        results = [self._keep(record) for record in given]
        if request.collection:
            self.collections[request.collection].update(record.id for record in given)
        return ds.AppendResponse(results=results)

    def _checked(self, index: int, given: pb.Record) -> pb.Record:
        path, expected = f"records[{index}]", records.BODY_OF_KIND.get(given.kind)
        if expected is None:
            raise InvalidArgument(f"{path}.kind", f"{given.kind} is not a known kind")
        if given.WhichOneof("body") != expected:
            raise InvalidArgument(f"{path}.{expected}", f"must be set; found {given.WhichOneof('body') or 'no body'}")
        if given.attempt < 0:
            raise InvalidArgument(f"{path}.attempt", f"is {given.attempt}; must not be negative")
        for name, text in [("parents", parent) for parent in given.parents] + [
            ("stage_config_id", given.stage_config_id)
        ]:
            if text and not _ID.fullmatch(text):
                raise InvalidArgument(f"{path}.{name}", "must be 32 lower-case hexadecimal digits")
        if given.kind == pb.KIND_REJECTION and given.rejection.rejected_kind not in records.BODY_OF_KIND:
            raise InvalidArgument(f"{path}.rejection.rejected_kind", "must be set")
        if given.kind in (pb.KIND_REJECTION, pb.KIND_DECISION) and not 0 < len(label(given)) <= 200:
            raise InvalidArgument(path, "must be named: 1 to 200 printable characters")
        if given.kind == pb.KIND_VERDICT and given.verdict.result.verdict in (
            sb.VERDICT_UNSPECIFIED,
            sb.VERDICT_INFRASTRUCTURE,
        ):
            raise InvalidArgument(
                f"{path}.verdict.result.verdict",
                "must be a verdict on the program: infrastructure faults are never recorded",
            )
        record = pb.Record()
        record.CopyFrom(given)
        records.complete(record)
        for name in ("id", "content_hash"):
            if getattr(given, name) not in ("", getattr(record, name)):
                raise InvalidArgument(f"{path}.{name}", f"is {getattr(given, name)}, not {getattr(record, name)}")
        return record

    def _keep(self, record: pb.Record) -> ds.AppendResult:
        there = self.records.get(record.id)
        if there is None:
            self.records[record.id] = record
            for parent in dict.fromkeys(record.parents):
                self._children[parent].append(record.id)
            return ds.AppendResult(id=record.id, outcome=ds.APPEND_OUTCOME_INSERTED)
        if there.content_hash != record.content_hash:
            return ds.AppendResult(id=record.id, outcome=ds.APPEND_OUTCOME_CONFLICT, kept=there)
        same = there == record
        return ds.AppendResult(id=record.id, outcome=ds.APPEND_OUTCOME_EXISTED, kept=None if same else there)

    async def get(self, request: ds.GetRequest) -> ds.GetResponse:
        """Return records by id."""
        async with self.control.call("get", request):
            ids = [self._resolve(given) for given in request.ids] if request.allow_prefix else self._ids(request.ids)
            return ds.GetResponse(records=[self.records[each] for each in ids if each in self.records])

    async def join(self, request: ds.JoinRequest) -> ds.JoinResponse:
        """Add records to a collection and return them."""
        async with self.control.call("join", request):
            if request.HasField("lease"):
                self._require_held(request.lease)
            if not request.collection:
                raise InvalidArgument("collection", "must be set")
            there = [each for each in self._ids(request.ids) if each in self.records]
            self.collections[request.collection].update(there)
            if request.ids_only:
                return ds.JoinResponse(records=[pb.Record(id=each) for each in there])
            return ds.JoinResponse(records=[self.records[each] for each in there])

    async def scan(self, request: ds.ScanRequest) -> ds.ScanResponse:
        """Return a page of records, in id order."""
        async with self.control.call("scan", request):
            if not 0 <= request.page_size <= _MOST:
                raise InvalidArgument("page_size", f"is {request.page_size}; 1 to {_MOST}, or 0 for 100")
            after, size = _page_start(request), request.page_size or 100
            found = [record for record in self._of(request.collection) if record.id > after]
            found = [record for record in found if self._matches(record, request)]
            page = found[:size]
            token = _page_token(request, page[-1].id) if len(found) > size else ""
            return ds.ScanResponse(records=page, next_page_token=token)

    def _matches(self, record: pb.Record, request: ds.ScanRequest) -> bool:
        return (
            request.kind in (0, record.kind)
            and request.stage_config_id in ("", record.stage_config_id)
            and (not request.parent_id or request.parent_id in record.parents)
            and (not request.HasField("lacks_child") or self._lacks(record, request))
        )

    def _lacks(self, record: pb.Record, request: ds.ScanRequest) -> bool:
        lacks, attempts = request.lacks_child, set()
        for child_id in self._children[record.id]:
            child = self.records[child_id]
            stands_for = child.rejection.rejected_kind if child.kind == pb.KIND_REJECTION else child.kind
            member = not request.collection or child_id in self.collections[request.collection]
            if stands_for == lacks.kind and lacks.stage_config_id in ("", child.stage_config_id) and member:
                attempts.add(child.attempt)
        wanted = lacks.attempts or 1
        return len({attempt for attempt in attempts if attempt < wanted}) < wanted

    async def count(self, request: ds.CountRequest) -> ds.CountResponse:
        """Return the numbers of records and their total cost."""
        async with self.control.call("count", request):
            counts: dict[tuple[int, str, int, int, str], ds.RecordCount] = {}
            for record in self._of(request.collection):
                rejected = record.rejection.rejected_kind if record.kind == pb.KIND_REJECTION else pb.KIND_UNSPECIFIED
                outcome = (
                    record.decision.outcome if record.kind == pb.KIND_DECISION else pb.Decision.OUTCOME_UNSPECIFIED
                )
                key = (record.kind, label(record), rejected, outcome, record.stage_config_id)
                count = counts.setdefault(
                    key,
                    ds.RecordCount(
                        kind=record.kind,
                        label=label(record),
                        rejected_kind=rejected,
                        outcome=outcome,
                        stage_config_id=record.stage_config_id,
                    ),
                )
                count.count += 1
                for name in ("prompt_tokens", "cached_prompt_tokens", "generated_tokens", "seconds"):
                    setattr(count, name, getattr(count, name) + getattr(record.provenance, name))
                if record.provenance.cached_prompt_tokens_unknown:
                    count.unknown_prompt_tokens += record.provenance.prompt_tokens
            return ds.CountResponse(counts=[count for _, count in sorted(counts.items())])

    async def lineage(self, request: ds.LineageRequest) -> ds.LineageResponse:
        """Return a record's ancestors or descendants, breadth first."""
        async with self.control.call("lineage", request):
            start = self._resolve(request.id)
            if start not in self.records:
                raise NotFound(f"record {request.id} does not exist")
            both = request.direction in (ds.DIRECTION_UNSPECIFIED, ds.DIRECTION_BOTH)
            up = [start] if both or request.direction == ds.DIRECTION_ANCESTORS else []
            down = [start] if both or request.direction == ds.DIRECTION_DESCENDANTS else []
            ids = list(dict.fromkeys([start]))
            while up or down:
                up = self._fresh((p for each in up for p in self.records[each].parents), ids, request.collection)
                ids += up
                down = self._fresh((c for each in down for c in self._children[each]), ids, request.collection)
                ids += down
            limit = request.limit or _MOST
            found = [self.records[each] for each in ids[:limit]]
            there = {record.id for record in found}
            configs = sorted({record.stage_config_id for record in found} - there)
            return ds.LineageResponse(
                records=found,
                references=[self.records[each] for each in configs if each in self.records],
                truncated=len(ids) > limit,
            )

    def _fresh(self, found: Iterable[str], seen: list[str], collection: str) -> list[str]:
        members = self.collections[collection] if collection else self.records.keys()
        return sorted({each for each in found if each in members} - set(seen))

    async def publish_version(self, request: ds.PublishVersionRequest) -> ds.PublishVersionResponse:
        """Publish a version. Its name is derived from the bytes of its examples, including their ids."""
        async with self.control.call("publish_version", request):
            if request.not_executed and request.verdicts:
                raise InvalidArgument("verdicts", "must be empty where nothing was executed")
            rows = self.of_kind(pb.KIND_EXAMPLE, request.collection)
            if not rows:
                raise FailedPrecondition(f"collection {request.collection} has no examples: nothing to publish")
            for row in rows:
                self._require_verdict(row, request)
            digest = hashlib.sha256()
            for row in rows:
                digest.update(row.id.encode() + row.example.SerializeToString(deterministic=True))
            name = f"v-{digest.hexdigest()[:16]}"
            existed = name in self.versions
            self.versions[name] = rows
            self.published.append(request)
            version = ds.Version(name=name, title=request.title, rows=len(rows), collection=request.collection)
            return ds.PublishVersionResponse(version=version, existed=existed)

    def _require_verdict(self, row: pb.Record, request: ds.PublishVersionRequest) -> None:
        example = row.example
        if request.not_executed:
            if example.verdict_id:
                raise FailedPrecondition(
                    f"example {row.id} has a verdict, but the version is for rows that were never executed"
                )
            return
        verdict = self.records.get(example.verdict_id)
        if verdict is None or verdict.kind != pb.KIND_VERDICT:
            raise FailedPrecondition(f"example {row.id} has no verdict (verdict_id {example.verdict_id or 'is empty'})")
        if not {step.record_id for step in example.lineage} & set(verdict.parents):
            raise FailedPrecondition(f"example {row.id}: verdict {verdict.id} does not belong to its response")
        result = verdict.verdict.result
        if result.verdict not in (request.verdicts or [sb.VERDICT_PASSED]):
            raise FailedPrecondition(f"example {row.id}: its verdict is {sb.Verdict.Name(result.verdict)}")
        if result.isolation != sb.ISOLATION_GVISOR:
            raise FailedPrecondition(f"example {row.id}: its verdict was made without gVisor's isolation")

    async def acquire_lease(self, request: ds.AcquireLeaseRequest) -> ds.AcquireLeaseResponse:
        """Acquire a lease, or acquire it again with a new token."""
        async with self.control.call("acquire_lease", request):
            lease, now = self._leases.setdefault(request.name, ds.Lease(name=request.name)), self.clock()
            left = _seconds(lease) - now
            if lease.holder not in ("", request.holder) and left > 0:
                raise Unavailable(
                    f"lease {request.name} is held by {lease.holder} for another {left:.1f} s", retry_after=left
                )
            return ds.AcquireLeaseResponse(
                lease=self._hold(lease, request.holder, lease.token + 1, request.ttl_seconds)
            )

    async def renew_lease(self, request: ds.RenewLeaseRequest) -> ds.RenewLeaseResponse:
        """Extend a lease, keeping its token."""
        async with self.control.call("renew_lease", request):
            lease = self._require_held(request.lease)
            return ds.RenewLeaseResponse(lease=self._hold(lease, lease.holder, lease.token, request.ttl_seconds))

    async def release_lease(self, request: ds.ReleaseLeaseRequest) -> ds.ReleaseLeaseResponse:
        """Release a lease if it is held with this token."""
        async with self.control.call("release_lease", request):
            lease = self._lease(request.lease.name)
            if lease.token == request.lease.token:
                lease.holder = ""
                lease.expires_at.FromNanoseconds(0)
            return ds.ReleaseLeaseResponse()

    def holder(self, name: str) -> str:
        """Return the current holder of a lease, or an empty string, for assertions."""
        lease = self._leases.get(name)
        return lease.holder if lease is not None and _seconds(lease) > self.clock() else ""

    def _hold(self, lease: ds.Lease, holder: str, token: int, ttl: float) -> ds.Lease:
        lease.holder, lease.token = holder, token
        lease.expires_at.FromNanoseconds(round((self.clock() + (ttl or _DEFAULT_TTL_SECONDS)) * 1e9))
        copy = ds.Lease()
        copy.CopyFrom(lease)
        return copy

    def _lease(self, name: str) -> ds.Lease:
        if name not in self._leases:
            raise NotFound(f"lease {name} does not exist: acquire it first")
        return self._leases[name]

    def _require_held(self, token: ds.LeaseToken) -> ds.Lease:
        lease = self._lease(token.name)
        if lease.token != token.token:
            raise FailedPrecondition(f"lease {token.name} is not held with token {token.token}: stop this work")
        if _seconds(lease) <= self.clock():
            raise FailedPrecondition(f"lease {token.name} (token {token.token}) has expired: acquire it again first")
        return lease

    def _of(self, collection: str) -> Iterator[pb.Record]:
        ids = self.collections[collection] if collection else self.records
        return (self.records[each] for each in sorted(ids))

    def _ids(self, given: Iterable[str]) -> list[str]:
        ids = list(given)
        if len(ids) > _MOST:
            raise InvalidArgument("ids", f"{len(ids)} ids; at most {_MOST} in one call")
        for index, each in enumerate(ids):
            if not _ID.fullmatch(each):
                raise InvalidArgument(f"ids[{index}]", "must be 32 lower-case hexadecimal digits")
        return ids

    def _resolve(self, given: str) -> str:
        if not _PREFIX.fullmatch(given):
            raise InvalidArgument("id", "must be an id or its beginning: 6 to 32 lower-case hexadecimal digits")
        matches = [each for each in self.records if each.startswith(given)]
        if len(matches) > 1:
            raise InvalidArgument("id", f"{given} is ambiguous, {len(matches)} ids begin with it: use more digits")
        return matches[0] if matches else ""


def label(record: pb.Record) -> str:
    """Return a decision's rule, a rejection's reason or a verdict's name without prefix; else an empty string."""
    if record.kind == pb.KIND_VERDICT:
        return sb.Verdict.Name(record.verdict.result.verdict).removeprefix("VERDICT_")
    return record.decision.rule or record.rejection.reason


def _seconds(lease: ds.Lease) -> float:
    return lease.expires_at.ToNanoseconds() / 1e9


def _question(request: ds.ScanRequest) -> str:
    question = ds.ScanRequest()
    question.CopyFrom(request)
    question.page_size, question.page_token = 0, ""
    return hashlib.sha256(question.SerializeToString(deterministic=True)).hexdigest()[:16]


def _page_token(request: ds.ScanRequest, last_id: str) -> str:
    return base64.urlsafe_b64encode(f"{last_id}{_question(request)}".encode()).decode()


def _page_start(request: ds.ScanRequest) -> str:
    if not request.page_token:
        return ""
    content = base64.urlsafe_b64decode(request.page_token).decode()
    if content[32:] != _question(request):
        raise InvalidArgument(
            "page_token", "belongs to a request with other fields: repeat the same fields for every page"
        )
    return content[:32]
