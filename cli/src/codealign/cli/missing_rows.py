"""Why a row of one run is not among the rows of another: where on its line from the seed the other run lost it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.connection import Connection
from codealign.cli.lineage import verdict_name

NOT_DRAWN = "never drawn"
NOT_CHOSEN = "not chosen"
READ_OTHERWISE = "read otherwise"
_TOLD_BY = (pb.KIND_REJECTION, pb.KIND_DECISION, pb.KIND_VERDICT)
"""A drop by a rule says more than a verdict, which a run may keep all the same (see SelectionSettings.strategy)."""


@dataclass(frozen=True)
class Side:
    """The rows that a run made."""

    given: str
    """As a person called it."""
    collection: str
    title: str = ""


@dataclass(frozen=True)
class Reason:
    """Why a row is missing."""

    name: str
    """A rejection's reason, a verdict, a rule, or "never drawn"."""
    detail: str = ""


async def why_missing(connection: Connection, row_id: str, other: Side) -> Reason:
    """Why a row is not among another side's.

    Args:
        connection: To the dataset service.
        row_id: A row of this side.
        other: The other.
    """
    row = await _one(connection, row_id)
    if row is None:
        return Reason(NOT_DRAWN, "its record is not in the store")
    line = [step.record_id for step in row.example.lineage] or list(row.parents[:1])
    stages = [step.stage for step in row.example.lineage] or [""]
    there = {record.id: record for record in await _get(connection, line)}
    for place in range(len(line) - 1, -1, -1):  # nearly always the response says it
        item = there.get(line[place])
        if item is None:
            continue
        reason = await _fate(connection, item, other, stages[place], last=place == len(line) - 1)
        if reason is not None:
            return reason
    return Reason(NOT_DRAWN, f"its seed was not taken in {other.given}")


async def _fate(connection: Connection, item: pb.Record, other: Side, stage: str, *, last: bool) -> Reason | None:
    """What became, on the other side, of what an item was read from; None: it was never there."""
    about, was_read = await _about(connection, item, other)
    for kind in _TOLD_BY:
        for record in about:
            reason = _said(record) if record.kind == kind else None
            if reason is not None:
                return reason
    if not about:
        return Reason(READ_OTHERWISE, "its completion was read, and gave no such record") if was_read else None
    if not last:
        return Reason(NOT_DRAWN, f"{stage or 'its parent'} is there, what was drawn next from it is not")
    verdict = next((record for record in about if record.kind == pb.KIND_VERDICT), None)
    said = f"it is {verdict_name(verdict.verdict.result.verdict)}" if verdict is not None else "it was not executed"
    return Reason(NOT_CHOSEN, said)


async def _about(connection: Connection, item: pb.Record, other: Side) -> tuple[list[pb.Record], bool]:
    """The other side's records that were read in an item's place and what is said of them; its completion was read."""
    if len(item.parents) < 2:  # nothing wrote it: a seed
        scan = ds.ScanRequest(kind=pb.KIND_DECISION, parent_id=item.id, collection=other.collection)
        return [record async for record in connection.scan(scan)], False
    origin = item.parents[1]
    asked = ds.LineageRequest(id=origin, direction=ds.DIRECTION_DESCENDANTS, collection=other.collection)
    found = (await connection.call(connection.clients.dataset.Lineage, asked)).records
    read = [record for record in found if origin in record.parents]
    same = {record.id for record in read if record.kind != pb.KIND_REJECTION and record.key == item.key}
    said = [record for record in found if same & set(record.parents)]
    there = [record for record in read if record.id in same or record.kind == pb.KIND_REJECTION]
    return sorted([*there, *said], key=_by_id), bool(read)


def _by_id(record: pb.Record) -> str:
    return record.id


def _said(record: pb.Record) -> Reason | None:
    """Why a record keeps a row away; None: it does not."""
    if record.kind == pb.KIND_REJECTION:
        return Reason(record.rejection.reason, record.rejection.detail)
    if record.kind == pb.KIND_DECISION and record.decision.outcome == pb.Decision.OUTCOME_DROPPED:
        return Reason(record.decision.rule, record.decision.detail)
    if record.kind == pb.KIND_VERDICT and record.verdict.result.verdict != sandbox.VERDICT_PASSED:
        return Reason(verdict_name(record.verdict.result.verdict), record.verdict.result.detail)
    return None


async def _one(connection: Connection, record_id: str) -> pb.Record | None:
    return next(iter(await _get(connection, [record_id])), None)


async def _get(connection: Connection, ids: Sequence[str]) -> Sequence[pb.Record]:
    return (await connection.call(connection.clients.dataset.Get, ds.GetRequest(ids=ids))).records
