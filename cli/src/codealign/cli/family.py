"""The records around one record, arranged as a family: from its seed to everything that came of that seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure

PIPELINE = (
    pb.KIND_SEED,
    pb.KIND_CONCEPT_SET,
    pb.KIND_INSTRUCTION,
    pb.KIND_RESPONSE,
    pb.KIND_VERDICT,
    pb.KIND_EXAMPLE,
)
"""The stages from a seed to a row. A record hangs below its parent of the latest of them."""

_MIN_DIGITS = 6
_ID_DIGITS = 32
_LIMIT = 10_000


@dataclass
class Family:
    """Records by id, and what hangs below each."""

    focus: str
    """The id that was asked for."""
    records: dict[str, pb.Record] = field(default_factory=dict)
    references: dict[str, pb.Record] = field(default_factory=dict)
    truncated: bool = False

    def __post_init__(self) -> None:
        self._children: dict[str, list[pb.Record]] = {}
        for record in self.records.values():
            parent = self.parent(record)
            if parent:
                self._children.setdefault(parent, []).append(record)
        for children in self._children.values():
            children.sort(key=lambda record: (record.attempt, record.kind, record.id))

    def parent(self, record: pb.Record) -> str:
        """The record below which it hangs; empty: it is a root, or that record is not among these.

        A decision is about its first parent, a rejection stands below its only one; what has several parents (a row
        has its whole line) hangs below the latest in the pipeline.
        """
        there = [self.records[parent] for parent in record.parents if parent in self.records]
        if not there:
            return ""
        if record.kind == pb.KIND_DECISION:
            return there[0].id if there[0].id == record.parents[0] else ""
        ranked = [parent for parent in there if parent.kind in PIPELINE]
        return max(ranked or there, key=lambda parent: int(parent.kind)).id

    def below(self, record_id: str, *stages: pb.Kind.ValueType) -> list[pb.Record]:
        """What hangs below a record, of these stages (none given: of all), by attempt."""
        children = self._children.get(record_id, [])
        return [child for child in children if not stages or child.kind in stages]

    def roots(self) -> list[pb.Record]:
        """The records that hang below none."""
        return [record for record in self.records.values() if not self.parent(record)]

    def line(self) -> set[str]:
        """The ids from the focus up to its root, itself included."""
        found: set[str] = set()
        current = self.focus
        while current and current not in found:
            found.add(current)
            current = self.parent(self.records[current])
        return found

    def descends(self, record_id: str) -> bool:
        """It is the focus or hangs somewhere below it."""
        seen: set[str] = set()
        while record_id and record_id not in seen:
            if record_id == self.focus:
                return True
            seen.add(record_id)
            record_id = self.parent(self.records[record_id])
        return False


def is_record_id(text: str) -> bool:
    """It is a whole record id."""
    return len(text) == _ID_DIGITS and _is_hexadecimal(text)


def _is_hexadecimal(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


def record_digits(given: str) -> str:
    """What a person gave as a record's id, or as its first digits, as the store takes it.

    Raises:
        Failure: It is neither.
    """
    text = given.strip().lower()
    if not _MIN_DIGITS <= len(text) <= _ID_DIGITS or not _is_hexadecimal(text):
        raise Failure(f"{given!r} is no record id: give its 32 hexadecimal digits, or at least the first {_MIN_DIGITS}")
    return text


async def find_record(connection: Connection, text: str) -> pb.Record:
    """The record with this id, or whose id begins with these digits (see `record_digits`).

    Raises:
        Failure: There is none, or there are several.
    """
    response = await connection.call(connection.clients.dataset.Get, ds.GetRequest(ids=[text], allow_prefix=True))
    if not response.records:
        raise Failure(f"no record's id begins with {text} in the dataset service at {connection.addresses.dataset}")
    return response.records[0]


async def find_run(connection: Connection, given: str) -> pb.Record | None:
    """The run with this id, first digits, or name; None: there is none.

    Raises:
        Failure: Several runs bear the name or begin with the digits.
    """
    found = []
    async for record in connection.scan(ds.ScanRequest(kind=pb.KIND_RUN)):
        by_id = len(given) >= _MIN_DIGITS and record.id.startswith(given.lower())
        if by_id or record.run.name == given:
            found.append(record)
    if len(found) > 1:
        ids = ", ".join(record.id[:12] for record in found)
        raise Failure(f"several runs are meant by {given!r}: {ids}. Give one's id")
    return found[0] if found else None


async def load_family(connection: Connection, digits: str, run_id: str = "") -> Family:
    """Everything about a record: its line up to the seed, and all that came of that seed.

    Args:
        connection: To the dataset service.
        digits: The record's id, or its first digits.
        run_id: Only what belongs to this run. Empty: all runs.

    Raises:
        Failure: There is no such record.
    """
    focus = await find_record(connection, digits)
    above = await _lineage(connection, focus.id, up=True)
    seeds = [record.id for record in above.records if record.kind == pb.KIND_SEED]
    records = {record.id: record for record in above.records}
    references = {record.id: record for record in above.references}
    truncated = above.truncated
    for root in seeds or [focus.id]:
        down = await _lineage(connection, root, up=False, run_id=run_id)
        _merge(records, down.records)
        _merge(references, down.references)
        truncated |= down.truncated
    return Family(focus.id, records, references, truncated)


def _merge(into: dict[str, pb.Record], records: Iterable[pb.Record]) -> None:
    for record in records:
        into.setdefault(record.id, record)


async def _lineage(connection: Connection, record_id: str, *, up: bool, run_id: str = "") -> ds.LineageResponse:
    direction = ds.DIRECTION_ANCESTORS if up else ds.DIRECTION_DESCENDANTS
    request = ds.LineageRequest(id=record_id, direction=direction, collection=run_id, limit=_LIMIT)
    return await connection.call(connection.clients.dataset.Lineage, request)
