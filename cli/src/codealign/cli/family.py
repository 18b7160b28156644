"""The records around one record, arranged as a tree: from its seed to everything derived from that seed.

A record's place in the tree follows from its parents alone, independent of the pipeline.
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
MOST = 10_000
"""Maximum number of records of a family in each direction."""
_BATCH = 500


@dataclass
class Family:
    """Records by id, arranged as a tree."""

    focus: str
    """Id of the requested record."""
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
        """Return the id of the record's parent in the tree, or "" if it is a root or the parent is missing.

        A decision belongs to its first parent. A record with several parents, such as a row with its response and
        verdict, is placed below the one farthest from the seed.
        """
        there = [self.records[parent] for parent in record.parents if parent in self.records]
        if not there:
            return ""
        if record.kind == pb.KIND_DECISION:
            return there[0].id if there[0].id == record.parents[0] else ""
        items = [parent for parent in there if parent.kind not in ORIGINS]
        return max(items or there, key=lambda parent: self._depth(parent.id)).id

    def _depth(self, record_id: str) -> int:
        """Return the length of the longest chain of parents above a record."""
        waiting = [record_id]  # not recursive: a chain may be longer than Python's stack
        started: set[str] = set()
        while waiting:
            current = waiting[-1]
            above = [parent for parent in self.records[current].parents if parent in self.records]
            missing = [parent for parent in above if parent not in self._depths and parent not in started]
            if current in self._depths or not missing:
                self._depths.setdefault(current, max((1 + self._depths.get(one, 0) for one in above), default=0))
                waiting.pop()
            started.add(current)  # guards against cycles in damaged data
            waiting += missing if current not in self._depths else ()
        return self._depths[record_id]

    def stage(self, record: pb.Record) -> str:
        """Return the name of the stage that made the record, or "" if unknown or none."""
        config = self.references.get(record.stage_config_id)
        return config.stage_config.name if config is not None else ""

    def completion(self, record: pb.Record) -> pb.Record | None:
        """Return the completion that a record was parsed from, or None if there is none or it is missing."""
        for parent in record.parents:
            found = self.records.get(parent) or self.references.get(parent)
            if found is not None and found.kind == pb.KIND_COMPLETION:
                return found
        return None

    def prefix(self, completion: pb.Record) -> pb.Record | None:
        """Return the prompt prefix of a completion, or None if it is missing."""
        found = [self.references.get(parent) or self.records.get(parent) for parent in completion.parents]
        return next((one for one in found if one is not None and one.kind == pb.KIND_PROMPT_PREFIX), None)

    def below(self, record_id: str) -> list[pb.Record]:
        """Return a record's children in the tree, ordered by attempt."""
        return self._children.get(record_id, [])

    def roots(self) -> list[pb.Record]:
        """Return the records without a parent in the tree."""
        return [record for record in self.records.values() if not self.parent(record)]

    def line(self) -> set[str]:
        """Return the ids from the focus up to its root, including both."""
        found: set[str] = set()
        current = self.focus
        while current and current not in found:
            found.add(current)
            current = self.parent(self.records[current])
        return found

    def models(self) -> set[str]:
        """Return the revisions of all models that wrote records."""
        found = {record.provenance.model_revision for record in (*self.records.values(), *self.references.values())}
        return found - {""}

    def descends(self, record_id: str) -> bool:
        """Return whether the record is the focus or below it."""
        seen: set[str] = set()
        while record_id and record_id not in seen:
            if record_id == self.focus:
                return True
            seen.add(record_id)
            record_id = self.parent(self.records[record_id])
        return False


def is_record_id(text: str) -> bool:
    """Return whether the text is a complete record id."""
    return len(text) == _ID_DIGITS and _is_hexadecimal(text)


def _is_hexadecimal(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


def record_digits(given: str) -> str:
    """Normalize a record id, or its first digits, as given by the user.

    Raises:
        Failure: The text is not a record id or its beginning.
    """
    text = given.strip().lower()
    if not _MIN_DIGITS <= len(text) <= _ID_DIGITS or not _is_hexadecimal(text):
        rows = "; a version's rows are in what `codealign data export` writes" if text.startswith("v-") else ""
        raise Failure(
            f"{given!r} is not a record id: give its 32 hexadecimal digits, or at least the first {_MIN_DIGITS}{rows}"
        )
    return text


async def find_record(connection: Connection, text: str) -> pb.Record:
    """Return the record whose id begins with these digits (see `record_digits`).

    Raises:
        Failure: No record matches, or several do.
    """
    response = await connection.call(connection.clients.dataset.Get, ds.GetRequest(ids=[text], allow_prefix=True))
    if not response.records:
        raise Failure(f"no record id starts with {text} in the dataset service at {connection.addresses.dataset}")
    return response.records[0]


async def find_run(connection: Connection, given: str) -> pb.Record | None:
    """Return the run with this id, first digits of an id, or name; None if there is none.

    Raises:
        Failure: Several runs match.
    """
    found = []
    async for record in connection.scan(ds.ScanRequest(kind=pb.KIND_RUN)):
        by_id = len(given) >= _MIN_DIGITS and record.id.startswith(given.lower())
        if by_id or record.run.name == given:
            found.append(record)
    if len(found) > 1:
        ids = ", ".join(record.id[:12] for record in found)
        raise Failure(f"several runs match {given!r}: {ids}. Give a run's id")
    return found[0] if found else None


async def load_family(connection: Connection, digits: str, run_id: str = "", *, most: int = MOST) -> Family:
    """Load the records around a record: its lineage up to the seed, and everything derived from that seed.

    Args:
        connection: To the dataset service.
        digits: The record's id, or its first digits.
        run_id: Restrict descendants to this run. Empty: all runs.
        most: Maximum number of records in each direction.

    Raises:
        Failure: There is no such record.
    """
    focus = await find_record(connection, digits)
    above = await _lineage(connection, focus.id, most, up=True)
    # What an imported response derives from need not begin with a seed.
    tasks = [record.id for record in above.records if record.kind == pb.KIND_INSTRUCTION and not record.parents]
    roots = [record.id for record in above.records if record.kind == pb.KIND_SEED] or tasks or [focus.id]
    records = {record.id: record for record in above.records if record.kind not in ORIGINS}
    records[focus.id] = focus
    references = {record.id: record for record in (*above.references, *above.records)}
    truncated = above.truncated
    for root in roots:
        down = await _lineage(connection, root, most, up=False, run_id=run_id)
        _merge(records, down.records)
        _merge(references, down.references)
        truncated |= down.truncated
    await _add_origins(connection, records, references)
    return Family(focus.id, records, references, truncated)


async def _add_origins(
    connection: Connection, records: Mapping[str, pb.Record], references: dict[str, pb.Record]
) -> None:
    """Fetch the completions that records were parsed from, their prompt prefixes, stage configurations, and Imports."""
    for _ in range(3):  # at most three hops: completion, its prompt prefix, and the configuration of each
        wanted = {
            needed
            for record in (*records.values(), *references.values())
            for needed in (*record.parents, record.stage_config_id, record.provenance.import_id)
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


async def _lineage(
    connection: Connection, record_id: str, most: int, *, up: bool, run_id: str = ""
) -> ds.LineageResponse:
    direction = ds.DIRECTION_ANCESTORS if up else ds.DIRECTION_DESCENDANTS
    request = ds.LineageRequest(id=record_id, direction=direction, collection=run_id, limit=most)
    return await connection.call(connection.clients.dataset.Lineage, request)
