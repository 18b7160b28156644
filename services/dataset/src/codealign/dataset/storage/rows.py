"""Records as rows and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, select

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.records import BODY_OF_KIND, body
from codealign.dataset.storage.schema import record_parents, records

T = TypeVar("T")

# Ids in one statement: well below both databases' limits of bound parameters.
CHUNK = 500


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def label(record: pb.Record) -> str:
    """What Count groups by: a decision's rule, a rejection's reason, a verdict's name without its prefix."""
    if record.kind == pb.KIND_DECISION:
        return record.decision.rule
    if record.kind == pb.KIND_REJECTION:
        return record.rejection.reason
    if record.kind == pb.KIND_VERDICT:
        number = record.verdict.result.verdict
        known = sandbox_pb2.Verdict.DESCRIPTOR.values_by_number.get(number)
        return known.name.removeprefix("VERDICT_") if known else str(number)
    return ""


def tally_key(record: pb.Record) -> tuple[int, str, int, int]:
    """What records are counted by: kind, label, rejected kind, outcome."""
    rejected_kind = record.rejection.rejected_kind if record.kind == pb.KIND_REJECTION else 0
    outcome = record.decision.outcome if record.kind == pb.KIND_DECISION else 0
    return record.kind, label(record), rejected_kind, outcome


def record_row(record: pb.Record) -> dict[str, Any]:
    """The row of `records`."""
    message = body(record)
    kind, name, rejected_kind, outcome = tally_key(record)
    return {
        "id": record.id,
        "kind": kind,
        "attempt": record.attempt,
        "stage_config_id": record.stage_config_id,
        "content_hash": record.content_hash,
        "label": name,
        "rejected_kind": rejected_kind,
        "outcome": outcome,
        "provenance": record.provenance.SerializeToString(deterministic=True),
        "body": message.SerializeToString(deterministic=True) if message is not None else b"",
    }


def parent_rows(record: pb.Record) -> Iterator[dict[str, Any]]:
    """The rows of `record_parents`."""
    is_rejection = record.kind == pb.KIND_REJECTION
    for position, parent in enumerate(record.parents):
        yield {
            "child_id": record.id,
            "position": position,
            "parent_id": parent,
            "child_kind": record.kind,
            "stands_for": record.rejection.rejected_kind if is_rejection else record.kind,
            "stage_config_id": record.stage_config_id,
            "attempt": record.attempt,
        }


def existing(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Those of the ids that are there."""
    found: set[str] = set()
    for some in chunks(sorted(set(ids))):
        found.update(connection.execute(select(records.c.id).where(records.c.id.in_(some))).scalars())
    return found


def load(connection: Connection, ids: Iterable[str]) -> dict[str, pb.Record]:
    """Whole records by id; those that are not there are left out."""
    found: dict[str, pb.Record] = {}
    for some in chunks(sorted(set(ids))):
        for row in connection.execute(select(records).where(records.c.id.in_(some))):
            found[row.id] = _record(row)
        edges = (
            select(record_parents.c.child_id, record_parents.c.parent_id)
            .where(record_parents.c.child_id.in_(some))
            .order_by(record_parents.c.child_id, record_parents.c.position)
        )
        for child, parent in connection.execute(edges):
            found[child].parents.append(parent)
    return found


def load_within(connection: Connection, ids: Sequence[str], max_bytes: int) -> list[pb.Record]:
    """Whole records in the order of the ids, as many as fit into `max_bytes`, and one at least."""
    loaded: list[pb.Record] = []
    size = 0
    for some in chunks(ids, 100):
        by_id = load(connection, some)
        for record in (by_id[record_id] for record_id in some if record_id in by_id):
            size += record.ByteSize()
            if loaded and size > max_bytes:
                return loaded
            loaded.append(record)
    return loaded


def _record(row: Row[Any]) -> pb.Record:
    record = pb.Record(
        id=row.id,
        kind=row.kind,
        attempt=row.attempt,
        stage_config_id=row.stage_config_id,
        content_hash=row.content_hash,
    )
    message = getattr(record, BODY_OF_KIND[row.kind])
    message.ParseFromString(bytes(row.body))
    message.SetInParent()  # an empty body is a body
    if row.provenance:
        record.provenance.ParseFromString(bytes(row.provenance))
    return record
