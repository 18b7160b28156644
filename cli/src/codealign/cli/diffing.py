"""Compare two sets of rows: find which were added, removed or changed, and why, from the records alone.

Rows are matched by the completion that they were parsed from, otherwise by seed and instruction text. Each row takes a
few hundred bytes of memory, whatever its length. Reasons for missing rows are looked up row by row, a bounded number at
a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.family import find_run, is_record_id
from codealign.cli.missing_rows import Reason, Side, why_missing
from codealign.cli.terminal import count
from codealign.common.sequences import batched

COMPARED = ("instruction", "response", "tests", "category", "difficulty", "concepts", "tests_in_instruction")
"""Fields of Example that are compared."""
MANY_DIFFERENCES = "several settings"
REPLACED = "read from another completion"
_BATCH = 250
_LOOK_UPS = 16
_DIGEST = 8


@dataclass(frozen=True, slots=True)
class Row:
    """Summary of a row that is held in memory."""

    id: str
    read_from: tuple[str, str]
    """Completion, and number of the record among those parsed from it. Empty: unknown."""
    text: bytes
    """Hash of the seed and the instruction's text."""
    parts: tuple[bytes, ...]
    """Hash of each compared field."""
    configs: tuple[str, str]
    """Stage configurations of the response and of the row."""


@dataclass(frozen=True)
class Change:
    """A row that differs between the two sides."""

    kind: str
    """"came", "went" or "changed"."""
    reason: str
    """Key for counting: a rule, a reason, a verdict, or the setting that differs."""
    detail: str
    before: str
    """The row's id in A. Empty: not in A."""
    after: str
    """The row's id in B. Empty: not in B."""


@dataclass
class Summary:
    """Number of rows, by kind of change and reason."""

    rows: list[int] = field(default_factory=lambda: [0, 0])
    same: int = 0
    reasons: dict[str, Counter[str]] = field(
        default_factory=lambda: {kind: Counter() for kind in ("changed", "went", "came")}
    )

    def add(self, change: Change) -> None:
        """Count a change."""
        self.reasons[change.kind][change.reason] += 1

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        by_kind = {kind: dict(sorted(counts.items())) for kind, counts in self.reasons.items()}
        return {"rows_before": self.rows[0], "rows_after": self.rows[1], "same": self.same, "reasons": by_kind}


async def find_side(connection: Connection, given: str) -> Side:
    """Return the rows that the user means.

    Args:
        connection: To the dataset service.
        given: A version's name, or a run's id, first digits or name.

    Raises:
        Failure: Nothing matches, or several runs match.
    """
    run = await find_run(connection, given)
    if run is not None:
        return Side(given, run.id, run.run.name)
    listed = await connection.call(connection.clients.dataset.ListVersions, ds.ListVersionsRequest())
    for version in listed.versions:
        if version.name == given:
            return Side(given, version.collection, version.title, version.rows)
    raise Failure(
        f"{given!r} is neither a version (see `codealign data versions`) nor a run id or name (see `codealign ls`)"
    )


async def unfinished(connection: Connection, side: Side) -> str:
    """Return a warning about a side whose run has not succeeded, or "".

    Args:
        connection: To the dataset service.
        side: The side.
    """
    if not is_record_id(side.collection):  # a collection that no run made
        return ""
    events = [
        record async for record in connection.scan(ds.ScanRequest(kind=pb.KIND_RUN_EVENT, parent_id=side.collection))
    ]
    if not events:
        return ""
    state = max(events, key=lambda record: record.attempt).run_event.state
    if state == pb.RUN_STATE_SUCCEEDED:
        return ""
    name = pb.RunState.Name(state).removeprefix("RUN_STATE_").lower()
    return f"{side.given}: the run has not finished (it is {name}); these are its rows so far"


def grown(side: Side, rows: int) -> str:
    """Return a warning about a version whose collection has other rows by now, or "". Rows are read from collections.

    Args:
        side: The side.
        rows: Rows of its collection.
    """
    if side.rows is None or side.rows == rows:
        return ""
    return (
        f"{side.given} has {count(side.rows, 'row')}, but its collection has {rows:,} by now, and these were compared; "
        "`codealign data export` gives the version's own rows"
    )


class Diff:
    """Difference between two sides.

    Args:
        connection: To the dataset service.
        before: Side A.
        after: Side B.
    """

    def __init__(self, connection: Connection, before: Side, after: Side) -> None:
        self._connection = connection
        self._sides = (before, after)
        self._configs: dict[str, pb.StageConfig] = {}
        self.summary = Summary()

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yield changed rows, removed ones (in A's order) and added ones (in B's), counting them in `summary`."""
        gone: dict[str, Row] = {}
        by_completion: dict[tuple[str, str], str] = {}
        async for row in self._rows(0):
            gone[row.id] = row
            if row.read_from[0]:
                by_completion[row.read_from] = row.id
        unmatched: list[Row] = []
        async for row in self._rows(1):
            known = by_completion.pop(row.read_from, "") if row.read_from[0] else ""
            if not known:
                unmatched.append(row)
            elif (change := await self._compared(gone.pop(known), row)) is not None:
                yield self._count(change)
        by_text: dict[bytes, list[str]] = {}
        for row in gone.values():
            by_text.setdefault(row.text, []).append(row.id)
        came: list[Row] = []
        pairs: list[tuple[Row, Row]] = []
        for row in unmatched:
            if others := by_text.get(row.text):
                pairs.append((gone.pop(others.pop(0)), row))
            else:
                came.append(row)
        for some in batched(pairs, _LOOK_UPS):
            for change in await asyncio.gather(*(self._replaced(old, new) for old, new in some)):
                if change is not None:
                    yield self._count(change)
        for kind, rows, other in (("went", list(gone.values()), 1), ("came", came, 0)):
            async for change in self._missing(kind, rows, self._sides[other]):
                yield change

    async def _rows(self, side: int) -> AsyncIterator[Row]:
        batch: list[pb.Record] = []
        request = ds.ScanRequest(kind=pb.KIND_EXAMPLE, collection=self._sides[side].collection)
        async for record in self._connection.scan(request):
            batch.append(record)
            if len(batch) == _BATCH:
                for row in await self._read(batch):
                    self.summary.rows[side] += 1
                    yield row
                batch.clear()
        for row in await self._read(batch):
            self.summary.rows[side] += 1
            yield row

    async def _read(self, examples: Sequence[pb.Record]) -> list[Row]:
        wanted = {record_id for record in examples for record_id in _line(record)[-2:]}
        there = await self._get(sorted(wanted))
        return [_row(record, there) for record in examples]

    async def _get(self, ids: Sequence[str]) -> dict[str, pb.Record]:
        found: dict[str, pb.Record] = {}
        for page in batched(ids, _BATCH):
            response = await self._connection.call(self._connection.clients.dataset.Get, ds.GetRequest(ids=page))
            found.update((record.id, record) for record in response.records)
        return found

    async def _compared(self, before: Row, after: Row) -> Change | None:
        """Return how a row differs from its match on the other side, or None if it is the same."""
        fields = [name for name, old, new in zip(COMPARED, before.parts, after.parts, strict=True) if old != new]
        if not fields:
            self.summary.same += 1
            return None
        differences = [
            text for pair in zip(before.configs, after.configs, strict=True) for text in await self._why(*pair)
        ]
        detail = f"{', '.join(fields)}: " + ("; ".join(differences) or "with the same settings")
        reason = differences[0] if len(differences) == 1 else MANY_DIFFERENCES if differences else "other content"
        return Change("changed", reason, detail, before.id, after.id)

    async def _replaced(self, before: Row, after: Row) -> Change | None:
        """Return how a row differs from one of another completion, and why its own completion yielded no row."""
        change = await self._compared(before, after)
        if change is None:
            return None
        fields = change.detail.partition(":")[0]
        reason = await why_missing(self._connection, before.id, self._sides[1])
        own = f"{reason.name}: {reason.detail}" if reason.detail else reason.name
        return replace(change, reason=REPLACED, detail=f"{fields}: that of A: {own}")

    async def _why(self, before: str, after: str) -> list[str]:
        """Return the differences between two stage configurations: "responses: version 1 → 2"."""
        if before == after:
            return []
        missing = sorted({before, after} - self._configs.keys() - {""})
        self._configs.update((key, record.stage_config) for key, record in (await self._get(missing)).items())
        old, new = (self._configs.get(key, pb.StageConfig()) for key in (before, after))
        one, other = _settings(old), _settings(new)
        return [
            f"{new.name or old.name}: {key} {_shown(one.get(key))} → {_shown(other.get(key))}"
            for key in sorted(one.keys() | other.keys())
            if one.get(key) != other.get(key)
        ]

    async def _missing(self, kind: str, rows: Sequence[Row], other: Side) -> AsyncIterator[Change]:
        for page in batched(rows, _LOOK_UPS):
            reasons = await asyncio.gather(*(why_missing(self._connection, row.id, other) for row in page))
            for row, reason in zip(page, reasons, strict=True):
                yield self._count(_missing_change(kind, row, reason))

    def _count(self, change: Change) -> Change:
        self.summary.add(change)
        return change


def _missing_change(kind: str, row: Row, reason: Reason) -> Change:
    before, after = (row.id, "") if kind == "went" else ("", row.id)
    return Change(kind, reason.name, reason.detail, before, after)


def _line(record: pb.Record) -> list[str]:
    """Return the ids of a row's ancestors, its response last."""
    return [step.record_id for step in record.example.lineage] or list(record.parents[:1])


def _row(record: pb.Record, there: Mapping[str, pb.Record]) -> Row:
    line = _line(record)
    response = there.get(line[-1]) if line else None
    parent = there.get(line[-2]) if len(line) > 1 else None
    asked = parent.instruction.text if parent is not None and parent.HasField("instruction") else ""
    completion = response.parents[1] if response is not None and len(response.parents) > 1 else ""
    return Row(
        id=record.id,
        read_from=(completion, response.key if response is not None else ""),
        text=_digest(line[0] if line else "", asked or record.example.instruction),
        parts=tuple(_digest(repr(_plain(getattr(record.example, name)))) for name in COMPARED),
        configs=(response.stage_config_id if response is not None else "", record.stage_config_id),
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool) else list(value)


def _digest(*texts: str) -> bytes:
    return hashlib.sha256("\0".join(texts).encode()).digest()[:_DIGEST]


def _settings(config: pb.StageConfig) -> dict[str, Any]:
    try:
        found = json.loads(config.settings_json or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"
