"""The records around one record, arranged as a family: from its seed to everything that came of that seed.

What a record hangs below follows from its parents alone, whatever the pipeline and its stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.common.sequences import batched

ItemT = TypeVar("ItemT")
ORIGINS = (pb.KIND_COMPLETION, pb.KIND_PROMPT_PREFIX, pb.KIND_RUN)
"""Kinds of parents besides the item that a record is about: the completion it was read from, its prompt, its run."""
BESIDE = (*ORIGINS, pb.KIND_VERDICT, pb.KIND_DECISION, pb.KIND_REJECTION, pb.KIND_STAGE_CONFIG)
"""Kinds that describe an item or belong to it, and so are no step from a seed to a row."""

_MIN_DIGITS = 6
_ID_DIGITS = 32
_LIMIT = 10_000
_BATCH = 500


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
        self._depths: dict[str, int] = {}
        for record in self.records.values():
            parent = self.parent(record)
            if parent:
                self._children.setdefault(parent, []).append(record)
        for children in self._children.values():
            children.sort(key=lambda record: (record.attempt, record.kind, record.key, record.id))

    def parent(self, record: pb.Record) -> str:
        """The record below which it hangs; empty: it is a root, or that record is not among these.

        A decision is about its first parent. What has several parents (a row has its response and the verdict) hangs
        below the one that is farthest from the seed.
        """
        there = [self.records[parent] for parent in record.parents if parent in self.records]
        if not there:
            return ""
        if record.kind == pb.KIND_DECISION:
            return there[0].id if there[0].id == record.parents[0] else ""
        items = [parent for parent in there if parent.kind not in ORIGINS]
        return max(items or there, key=lambda parent: self._depth(parent.id)).id

    def _depth(self, record_id: str) -> int:
        """The length of the longest line of parents above a record."""
        if record_id not in self._depths:
            self._depths[record_id] = 0  # whatever a store says, no record is its own ancestor
            above = [parent for parent in self.records[record_id].parents if parent in self.records]
            self._depths[record_id] = max((1 + self._depth(parent) for parent in above), default=0)
        return self._depths[record_id]

    def stage(self, record: pb.Record) -> str:
        """The name of the stage that made it. Empty: not known, or none did."""
        config = self.references.get(record.stage_config_id)
        return config.stage_config.name if config is not None else ""

    def completion(self, record: pb.Record) -> pb.Record | None:
        """What a record was read from; None: nothing, or it is not among these."""
        for parent in record.parents:
            found = self.records.get(parent) or self.references.get(parent)
            if found is not None and found.kind == pb.KIND_COMPLETION:
                return found
        return None

    def prefix(self, completion: pb.Record) -> pb.Record | None:
        """What a completion's prompt begins with; None: it is not among these."""
        found = [self.references.get(parent) or self.records.get(parent) for parent in completion.parents]
        return next((one for one in found if one is not None and one.kind == pb.KIND_PROMPT_PREFIX), None)

    def below(self, record_id: str) -> list[pb.Record]:
        """What hangs below a record, by attempt."""
        return self._children.get(record_id, [])

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
    records = {record.id: record for record in above.records if record.kind not in ORIGINS}
    records[focus.id] = focus
    references = {record.id: record for record in (*above.references, *above.records)}
    truncated = above.truncated
    for root in seeds or [focus.id]:
        down = await _lineage(connection, root, up=False, run_id=run_id)
        _merge(records, down.records)
        _merge(references, down.references)
        truncated |= down.truncated
    await _add_origins(connection, records, references)
    return Family(focus.id, records, references, truncated)


async def _add_origins(
    connection: Connection, records: Mapping[str, pb.Record], references: dict[str, pb.Record]
) -> None:
    """Fetch what the records were read from, the prompts of that, and the configurations of all."""
    for _ in range(3):  # a completion, its prompt's prefix, and no more; a configuration beside each
        wanted = {
            needed
            for record in (*records.values(), *references.values())
            for needed in (*record.parents, record.stage_config_id)
            if needed and needed not in records and needed not in references
        }
        if not wanted:
            return
        for page in batched(sorted(wanted), _BATCH):
            found = await connection.call(connection.clients.dataset.Get, ds.GetRequest(ids=page))
            _merge(references, found.records)


def _merge(into: dict[str, pb.Record], records: Iterable[pb.Record]) -> None:
    for record in records:
        into.setdefault(record.id, record)


async def _lineage(connection: Connection, record_id: str, *, up: bool, run_id: str = "") -> ds.LineageResponse:
    direction = ds.DIRECTION_ANCESTORS if up else ds.DIRECTION_DESCENDANTS
    request = ds.LineageRequest(id=record_id, direction=direction, collection=run_id, limit=_LIMIT)
    return await connection.call(connection.clients.dataset.Lineage, request)
