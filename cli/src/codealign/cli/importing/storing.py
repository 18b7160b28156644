"""Appending of imported records to the store, in batches of bounded size."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import grpc

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.importing.rows import Problem, Row
from codealign.common.errors import violations

MOST_RECORDS = 500
MOST_BYTES = 2 * 2**20
_OF_RECORD = re.compile(r"records\[(\d+)\]")


class _Place(NamedTuple):
    """Where a row is. The row itself, with columns that are not read, is not held."""

    file: str
    row: int


_Held = dict[str, tuple[pb.Record, _Place | None]]
"""Records on their way by id, each with the first row that it is of. None: it is a file's."""


class Batches:
    """Records on their way into a collection.

    Args:
        connection: To the dataset service.
        collection: The collection.
        on_problem: Called with each row that the store refuses, wholly or in part.
    """

    def __init__(self, connection: Connection, collection: str, on_problem: Callable[[Problem], None]) -> None:
        self._connection, self._collection, self._on_problem = connection, collection, on_problem
        self._held: _Held = {}
        self._bytes = 0
        self._new: dict[_Place, bool] = {}
        """Whether something was new of each row of which records were sent, and which is not counted yet."""
        self._refused: dict[_Place, str] = {}
        """The same rows' reasons of the store for refusing a record."""
        self.inserted = 0
        """Rows of which something was new."""
        self.existed = 0
        """Rows that the store had, or that occurred before."""

    async def add(self, made: list[pb.Record], row: Row | None = None) -> None:
        """Add the records of a row, parents first. Flushes a full batch.

        A row with more responses than a batch holds is sent in several.
        """
        if self._is_full(len(made), sum(each.ByteSize() for each in made)):
            await self.flush()
        place = _Place(row.file, row.number) if row is not None else None
        new = [record for record in made if record.id not in self._held]  # a row may have several responses
        if place is not None and not new:
            self.existed += 1
        for record in new:
            if self._held and self._is_full(1, record.ByteSize()):
                await self._send()
            self._held[record.id] = record, place
            self._bytes += record.ByteSize()

    def _is_full(self, records: int, size: int) -> bool:
        """Return whether more records do not fit into the batch."""
        return len(self._held) + records > MOST_RECORDS or self._bytes + size > MOST_BYTES

    async def flush(self) -> None:
        """Append what is held, and count the rows.

        Raises:
            Failure: The store cannot be reached, or refuses something other than a row.
        """
        await self._send()
        counted = [is_new for place, is_new in self._new.items() if place not in self._refused]
        self.inserted += sum(counted)
        self.existed += len(counted) - sum(counted)
        for place, reason in self._refused.items():
            self._on_problem(Problem(place.file, place.row, "", "too-large", reason))
        self._new, self._refused = {}, {}

    async def _send(self) -> None:
        held, self._held, self._bytes = self._held, {}, 0
        while held:
            request = ds.AppendRequest(records=[record for record, _ in held.values()], collection=self._collection)
            try:
                response = await self._connection.call(self._connection.clients.dataset.Append, request)
            except Failure as failure:
                held = _without_refused(held, failure, self._refused)
                continue
            for result, (_, place) in zip(response.results, held.values(), strict=True):
                if place is not None:
                    inserted = result.outcome == ds.APPEND_OUTCOME_INSERTED
                    self._new[place] = self._new.get(place, False) or inserted
            break


def _without_refused(held: _Held, failure: Failure, refused: dict[_Place, str]) -> _Held:
    """Return the batch without the records that the store refuses and those derived from them.

    Args:
        held: The batch.
        failure: What the store answered.
        refused: Receives the rows of these records, with the reason.

    Raises:
        Failure: The store refuses something other than a row.
    """
    wrong = violations(failure.__cause__) if isinstance(failure.__cause__, grpc.aio.AioRpcError) else []
    items = list(held.values())
    reasons: dict[str, str] = {}
    for path, text in wrong:
        if found := _OF_RECORD.match(path):
            record, place = items[int(found[1])]
            if place is None:
                raise failure
            reasons[record.id] = f"the store refuses it: {path[found.end() :].lstrip('.')} {text}".strip()
    if not reasons:
        raise failure
    kept: _Held = {}
    for record, place in items:
        reason = reasons.get(record.id) or next((reasons[one] for one in record.parents if one in reasons), "")
        if not reason:
            kept[record.id] = record, place
        elif place is not None:
            reasons[record.id] = reason
            refused.setdefault(place, reason)
    return kept
