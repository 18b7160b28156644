"""The candidates for a row, by the item that they answer. A run has hundreds of thousands, so ids are kept as bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

_ID_BYTES = 16


def packed(ids: Iterable[str]) -> bytes:
    """Ids (32 hexadecimal digits each) in half their length."""
    return bytes.fromhex("".join(ids))


def unpacked(data: bytes) -> list[str]:
    """The ids again."""
    text = data.hex()
    return [text[start : start + 2 * _ID_BYTES] for start in range(0, len(text), 2 * _ID_BYTES)]


class Candidate(NamedTuple):
    """A record that may become a row."""

    attempt: int
    number: int
    """Among those that were read from one completion."""
    record: bytes
    """Its id."""
    verdict: bytes
    """The id of the verdict on it. Empty: nothing is executed."""

    @property
    def record_id(self) -> str:
        """Its id."""
        return self.record.hex()

    @property
    def verdict_id(self) -> str:
        """The id of the verdict on it, or nothing."""
        return self.verdict.hex()


@dataclass(slots=True)
class Group:
    """An item of the stage before the candidates', and what was drawn for it."""

    line: bytes
    """The ids of the records that the item came from, the seed's first, its own last."""
    key: str
    drawn: int = 0
    eligible: list[Candidate] = field(default_factory=list)
    """Those that the strategy takes and that meet the rules for rows, in the order of preference."""

    @property
    def ids(self) -> list[str]:
        """The ids of its line."""
        return unpacked(self.line)
