"""Write requests of the store and their results."""

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
    """Outcome of appending one record."""

    id: str
    outcome: dataset_pb2.AppendOutcome.ValueType
    kept: pb.Record | None = None
    """The stored record, if it differs from the one sent."""


@dataclass(frozen=True)
class Append:
    """A request to add records."""

    entries: Sequence[Entry]
    """Validated and complete."""
    collection: str = ""
    """The collection that all of them join, existing records included. Empty: none."""
    fence: Fence | None = None
    """Refuse unless this lease is held. Checked in the same transaction, so that a holder that lost it can no longer
    write, however late its call arrives.
    """

    def __len__(self) -> int:
        return len(self.entries)

    def size_bytes(self) -> int:
        """Return the approximate size of the request for the database."""
        return sum(len(item.body) for item in self.entries)

    def own(self) -> Iterable[str]:
        """Return the ids that the request is about."""
        return (item.record.id for item in self.entries)


@dataclass(frozen=True)
class Join:
    """A request to make existing records members of a collection, and to return them."""

    ids: Sequence[str]
    collection: str
    fence: Fence | None = None
    ids_only: bool = False
    """Return records with nothing but their ids."""
    max_bytes: int = DEFAULT_BYTES
    """Refuse a larger response."""

    def __len__(self) -> int:
        return len(self.ids)

    def size_bytes(self) -> int:
        """Return the approximate size of the request for the database."""
        return 0

    def own(self) -> Iterable[str]:
        """Return the ids that the request is about."""
        return self.ids


Write = Append | Join
Result = list[Appended] | list[pb.Record] | Exception
"""Result of an Append, of a Join (in the order of its ids), or the reason for refusing the request."""
