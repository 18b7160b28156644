"""Find out why a row of one run is missing from another: where in its lineage the other run dropped it."""

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
READ_OTHERWISE = "parsed differently"
_TOLD_BY = (pb.KIND_REJECTION, pb.KIND_DECISION, pb.KIND_VERDICT)
"""Kinds that explain a missing row, most specific first. A rule says more than a verdict: a run may keep failing rows
(see SelectionSettings.strategy)."""


@dataclass(frozen=True)
class Side:
    """The rows of a run or version."""

    given: str
    """The name that the user gave."""
    collection: str
    title: str = ""
    rows: int | None = None
    """Rows of the version that was named. None: a run was named."""


@dataclass(frozen=True)
class Reason:
    """Reason why a row is missing."""

    name: str
    """A rejection's reason, a verdict, a rule, or "never drawn"."""
    detail: str = ""


async def why_missing(connection: Connection, row_id: str, other: Side) -> Reason:
    """Find out why a row of one side is missing from the other.

    Args:
        connection: To the dataset service.
        row_id: The row's id.
        other: The side that lacks the row.
    """
    row = await _one(connection, row_id)
    if row is None:
        return Reason(NOT_DRAWN, "its record is not in the dataset service")
    line = [step.record_id for step in row.example.lineage] or list(row.parents[:1])
    stages = [step.stage for step in row.example.lineage] or [""]
    there = {record.id: record for record in await _get(connection, line)}
    for place in range(len(line) - 1, -1, -1):  # nearly always the response explains it
        item = there.get(line[place])
        if item is None:
            continue
        reason = await _fate(connection, item, other, stages[place], last=place == len(line) - 1)
        if reason is not None:
            return reason
    return Reason(NOT_DRAWN, f"{other.given} did not use its seed")


async def _fate(connection: Connection, item: pb.Record, other: Side, stage: str, *, last: bool) -> Reason | None:
    """Return why the other side lost an item, or None if it never had the item."""
    about, was_read = await _about(connection, item, other)
    for kind in _TOLD_BY:
        for record in about:
            reason = drop_reason(record) if record.kind == kind else None
            if reason is not None:
                return reason
    if not about:
        return Reason(READ_OTHERWISE, "its completion was parsed, but yielded no such record") if was_read else None
    if not last:
        return Reason(NOT_DRAWN, f"{stage or 'its parent'} exists, but nothing was drawn from it")
    verdict = next((record for record in about if record.kind == pb.KIND_VERDICT), None)
    said = f"its verdict is {verdict_name(verdict.verdict.result.verdict)}" if verdict is not None else "not executed"
    return Reason(NOT_CHOSEN, said)


async def _about(connection: Connection, item: pb.Record, other: Side) -> tuple[list[pb.Record], bool]:
    """Return the other side's records in the item's place and about it, and whether its completion was parsed."""
    if len(item.parents) < 2:  # a seed, which no model wrote
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


def drop_reason(record: pb.Record) -> Reason | None:
    """Return why a record excludes a row, or None if it does not."""
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
