"""Candidates for rows, grouped by the item they answer. A run has hundreds of thousands, so ids are kept as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Item

_ID_BYTES = 16


def packed(ids: Iterable[str]) -> bytes:
    """Return ids (32 hexadecimal digits each) packed into half their length."""
    return bytes.fromhex("".join(ids))


def unpacked(data: bytes) -> list[str]:
    """Return the ids in packed data."""
    text = data.hex()
    return [text[start : start + 2 * _ID_BYTES] for start in range(0, len(text), 2 * _ID_BYTES)]


class Candidate(NamedTuple):
    """A record that may become a row."""

    attempt: int
    number: int
    """Position among the records parsed from one completion."""
    record: bytes
    """Its id."""
    verdict: bytes
    """Id of its verdict. Empty: nothing is executed."""

    @property
    def record_id(self) -> str:
        """Its id in hexadecimal."""
        return self.record.hex()

    @property
    def executed(self) -> bool:
        """Whether it has a verdict."""
        return bool(self.verdict)

    @property
    def verdict_id(self) -> str:
        """Hexadecimal id of its verdict, or ""."""
        return self.verdict.hex()


@dataclass(slots=True)
class Group:
    """An item of the stage before the candidates, and the candidates drawn for it.

    Without a writing stage, the item is the only candidate itself.
    """

    line: bytes
    """Ids of the records that the item derives from: the seed's first, the item's last."""
    key: str
    drawn: int = 0
    eligible: list[Candidate] = field(default_factory=list)
    """Candidates that the strategy takes and that meet the row rules, in order of preference."""
    offered: int = 0
    """Candidates of these that were offered to de-duplication. Used by runs with a target."""
    judgement: bytes = b""
    """Id of the judgement that compared the attempts. Empty: the strategy does not compare them."""
    labels: tuple[str, str] = ("", "")
    """Difficulty and category of the instruction. Used by runs with a target."""

    @property
    def ids(self) -> list[str]:
        """Ids of the records that the item derives from."""
        return unpacked(self.line)


def parent_of(group: Group, found: Mapping[str, pb.Record], pipeline: Pipeline) -> Item:
    """Return a group's item.

    Args:
        group: The group.
        found: Records by id.
        pipeline: The run's.

    Raises:
        RunFailed: A record is missing.
    """
    records = [there(found, record_id) for record_id in group.ids]
    written = _written_before(pipeline)
    above = [pipeline.seeds.ancestors[record.kind] for record in records[: len(records) - 1 - len(written)]]
    return Item(records[-1], group.key, dict(zip([*above, pipeline.seeds.name, *written], records, strict=True)))


def root_of(group: Group, pipeline: Pipeline) -> str:
    """Return the id of the collection's record that a group's item derives from."""
    return group.ids[-1 - len(_written_before(pipeline))]


def _written_before(pipeline: Pipeline) -> list[str]:
    """Return the writing stages between the root and the candidates, in order."""
    names, at = [], pipeline.candidates.parent
    while at and at != pipeline.seeds.name:
        names.append(at)
        at = pipeline.stage(at).parent
    return names[::-1]


def there(found: Mapping[str, pb.Record], record_id: str) -> pb.Record:
    """Return one of the records that were looked up.

    Raises:
        RunFailed: It is missing.
    """
    record = found.get(record_id)
    if record is None:
        raise RunFailed(f"the dataset service no longer has record {record_id}, which this run created or used")
    return record
