"""Converts records to rows and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from sqlalchemy import Connection

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.errors import FailedPrecondition, Internal, InvalidArgument
from codealign.common.records import BODY_OF_KIND, body
from codealign.common.sequences import batched
from codealign.dataset.storage.bulk import select_in

T = TypeVar("T")

# Ids per SQLAlchemy statement: well below both databases' limits of bound parameters.
CHUNK = 500


class Head(NamedTuple):
    """A stored record without its body: the fields that Count groups by, and those that identify equal records."""

    kind: int
    label: str
    rejected_kind: int
    outcome: int
    stage_config_id: str
    content_hash: str
    provenance: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A record ready to be stored. It is serialized only once for its hash, its row and all comparisons."""

    record: pb.Record
    head: Head
    body: bytes

    def row(self) -> tuple[Any, ...]:
        """Return the row of `records`."""
        record, head = self.record, self.head
        return (
            record.id,
            head.kind,
            record.attempt,
            head.stage_config_id,
            head.content_hash,
            head.label,
            head.rejected_kind,
            head.outcome,
            head.provenance,
            self.body,
            record.key,
        )

    def edges(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of `record_parents`."""
        record, head = self.record, self.head
        stands_for = head.rejected_kind if head.kind == pb.KIND_REJECTION else head.kind
        for position, parent in enumerate(record.parents):
            yield (record.id, position, parent, head.kind, stands_for, head.stage_config_id, record.attempt)


def label(record: pb.Record) -> str:
    """Return the label that Count groups by: a decision's rule, a rejection's reason, or a verdict without prefix."""
    if record.kind == pb.KIND_DECISION:
        return record.decision.rule
    if record.kind == pb.KIND_REJECTION:
        return record.rejection.reason
    if record.kind == pb.KIND_VERDICT:
        return verdict_name(record.verdict.result.verdict)
    return ""


def verdict_name(number: int) -> str:
    """Return a verdict's name without its prefix, or its number if this program does not know it."""
    known = sandbox_pb2.Verdict.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix("VERDICT_") if known else str(number)


def entry(record: pb.Record, serialized: bytes | None = None) -> Entry:
    """Return a complete record (with id and content hash) ready to be stored.

    Args:
        record: The record.
        serialized: Its body, deterministically serialized, if the caller already has it.
    """
    if serialized is None:
        message = body(record)
        serialized = message.SerializeToString(deterministic=True) if message is not None else b""
    kind = record.kind
    head = Head(
        kind,
        label(record),
        record.rejection.rejected_kind if kind == pb.KIND_REJECTION else 0,
        record.decision.outcome if kind == pb.KIND_DECISION else 0,
        record.stage_config_id,
        record.content_hash,
        record.provenance.SerializeToString(deterministic=True) if record.HasField("provenance") else b"",
    )
    return Entry(record, head, serialized)


def existing(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Return those of the ids that exist."""
    statement = "SELECT id FROM records WHERE id {in_keys}"
    return {row[0] for row in select_in(connection, statement, list(set(ids)))}


def heads(connection: Connection, ids: Iterable[str]) -> dict[str, Head]:
    """Return records without their bodies, by id. Missing ones are left out."""
    columns = "id, kind, label, rejected_kind, outcome, stage_config_id, content_hash, provenance"
    statement = f"SELECT {columns} FROM records WHERE id {{in_keys}}"  # noqa: S608 - no value is in it
    rows = select_in(connection, statement, list(ids))
    return {row[0]: Head._make((*row[1:7], bytes(row[7]))) for row in rows}


def load(connection: Connection, ids: Iterable[str]) -> dict[str, pb.Record]:
    """Return complete records by id. Missing ones are left out.

    Raises:
        FailedPrecondition: A record is of a kind that this program does not know.
        Internal: The body of a record is damaged.
    """
    wanted = list(set(ids))
    columns = "id, kind, attempt, stage_config_id, content_hash, provenance, body, key"
    statement = f"SELECT {columns} FROM records WHERE id {{in_keys}}"  # noqa: S608 - no value is in it
    found = {row[0]: _record(*row) for row in select_in(connection, statement, wanted)}
    statement = "SELECT child_id, parent_id FROM record_parents WHERE child_id {in_keys} ORDER BY child_id, position"
    for child, parent in select_in(connection, statement, wanted):
        found[child].parents.append(parent)
    return found


def load_within(connection: Connection, ids: Sequence[str], max_bytes: int, batch: int = 100) -> list[pb.Record]:
    """Return complete records in the order of the ids: as many as fit into `max_bytes`, but at least one.

    Args:
        connection: The connection.
        ids: The records.
        max_bytes: Maximum size of all of them.
        batch: Number of records that are read at once.
    """
    loaded: list[pb.Record] = []
    size = 0
    for some in batched(ids, batch):
        by_id = load(connection, some)
        for record in (by_id[record_id] for record_id in some if record_id in by_id):
            size += record.ByteSize()
            if loaded and size > max_bytes:
                return loaded
            loaded.append(record)
    return loaded


def within(answer: Sequence[pb.Record], max_bytes: int) -> None:
    """Refuse a response that exceeds the message limit.

    Raises:
        InvalidArgument: The records are too large.
    """
    size = sum(record.ByteSize() for record in answer)
    if size > max_bytes:
        raise InvalidArgument(
            "ids", f"these records have {size} bytes, but at most {max_bytes} fit into a response: request fewer"
        )


def _record(
    record_id: str,
    kind: int,
    attempt: int,
    stage_config_id: str,
    content_hash: str,
    provenance: bytes,
    serialized: bytes,
    key: str,
) -> pb.Record:
    field = BODY_OF_KIND.get(pb.Kind.ValueType(kind))
    if field is None:
        raise FailedPrecondition(
            f"record {record_id} is of kind {kind}, which this program does not know: a newer release wrote it, and it "
            "is kept unchanged; install that release to read it"
        )
    record = pb.Record(
        id=record_id,
        kind=pb.Kind.ValueType(kind),
        attempt=attempt,
        stage_config_id=stage_config_id,
        content_hash=content_hash,
        key=key,
    )
    message = getattr(record, field)
    try:
        message.ParseFromString(bytes(serialized))
        message.SetInParent()  # an empty body is still a body
        if provenance:
            record.provenance.ParseFromString(bytes(provenance))
    except DecodeError as error:
        raise Internal(f"record {record_id} is damaged in the database ({error}); restore it from a backup") from error
    return record
