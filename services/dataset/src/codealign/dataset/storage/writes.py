"""What is asked of the store by those who write, and what they get."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.dataset.storage.leases import Fence
from codealign.dataset.storage.rows import Entry

DEFAULT_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one record."""

    id: str
    outcome: dataset_pb2.AppendOutcome.ValueType
    kept: pb.Record | None = None
    """What the store holds, where that is not what was sent."""


@dataclass(frozen=True)
class Append:
    """A request to add records."""

    entries: Sequence[Entry]
    """Checked and complete."""
    collection: str = ""
    """They become its members, those that existed included. Empty: none."""
    fence: Fence | None = None
    """Refuse unless this lease is held; checked in the same transaction, so that a holder that lost it cannot write
    any more, however late its call arrives."""

    def __len__(self) -> int:
        return len(self.entries)

    def size_bytes(self) -> int:
        """What it has the database take, about."""
        return sum(len(item.body) for item in self.entries)

    def own(self) -> Iterable[str]:
        """The ids that it is about."""
        return (item.record.id for item in self.entries)


@dataclass(frozen=True)
class Join:
    """A request to make records that are there members of a collection, and to give them."""

    ids: Sequence[str]
    collection: str
    fence: Fence | None = None
    ids_only: bool = False
    """Give records that hold their ids alone."""
    max_bytes: int = DEFAULT_BYTES
    """A larger answer is refused."""

    def __len__(self) -> int:
        return len(self.ids)

    def size_bytes(self) -> int:
        """What it has the database take."""
        return 0

    def own(self) -> Iterable[str]:
        """The ids that it is about."""
        return self.ids


Write = Append | Join
Result = list[Appended] | list[pb.Record] | Exception
"""An Append's, a Join's (in the order of its ids), or why the request was refused."""
