"""Candidates for rows, grouped by the item they answer. A run has hundreds of thousands, so ids are kept as bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

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

    @property
    def ids(self) -> list[str]:
        """Ids of the records that the item derives from."""
        return unpacked(self.line)
