"""Appending of imported records to the store, in batches of bounded size."""

from __future__ import annotations

import re
from collections.abc import Callable

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


class Batches:
    """Records on their way into a collection.

    Args:
        connection: To the dataset service.
        collection: The collection.
        on_problem: Called with each row that the store refuses.
    """

    def __init__(self, connection: Connection, collection: str, on_problem: Callable[[Problem], None]) -> None:
        self._connection, self._collection, self._on_problem = connection, collection, on_problem
        self._held: dict[str, tuple[pb.Record, Row | None, bool]] = {}
        """Records by id with their row, and whether the record is the row's last."""
        self._bytes = 0
        self.inserted = 0
        """Rows of which something was new."""
        self.existed = 0
        """Rows that the store had, or that occurred before."""

    async def add(self, made: list[pb.Record], row: Row | None = None) -> None:
        """Add the records of a row, parents first. Flushes a full batch."""
        if (
            len(self._held) + len(made) > MOST_RECORDS
            or self._bytes + sum(each.ByteSize() for each in made) > MOST_BYTES
        ):
            await self.flush()
        if row is not None and made[-1].id in self._held:
            self.existed += 1
            return
        for record in made:
            if record.id not in self._held:
                self._held[record.id] = record, row, row is not None and record is made[-1]
                self._bytes += record.ByteSize()

    async def flush(self) -> None:
        """Append what is held.

        Raises:
            Failure: The store cannot be reached, or refuses something other than a row.
        """
        held, self._held, self._bytes = self._held, {}, 0
        while held:
            request = ds.AppendRequest(records=[each[0] for each in held.values()], collection=self._collection)
            try:
                response = await self._connection.call(self._connection.clients.dataset.Append, request)
            except Failure as failure:
                held = self._without_refused(held, failure)
                continue
            for result, (_, _, last) in zip(response.results, held.values(), strict=True):
                if last and result.outcome == ds.APPEND_OUTCOME_INSERTED:
                    self.inserted += 1
                elif last:
                    self.existed += 1
            return

    def _without_refused(
        self, held: dict[str, tuple[pb.Record, Row | None, bool]], failure: Failure
    ) -> dict[str, tuple[pb.Record, Row | None, bool]]:
        """Return the batch without the records that the store refuses and those derived from them."""
        wrong = violations(failure.__cause__) if isinstance(failure.__cause__, grpc.aio.AioRpcError) else []
        items = list(held.values())
        refused: dict[str, str] = {}
        for path, text in wrong:
            if found := _OF_RECORD.match(path):
                record, row, _ = items[int(found[1])]
                if row is None:
                    raise failure
                refused[record.id] = f"the store refuses it: {path[found.end() :].lstrip('.')} {text}".strip()
        if not refused:
            raise failure
        kept = {}
        for record, row, last in items:
            reason = refused.get(record.id) or next((refused[one] for one in record.parents if one in refused), "")
            if reason:
                refused[record.id] = reason
                if last and row is not None:
                    self._on_problem(Problem(row.file, row.number, "", "too-large", reason))
            else:
                kept[record.id] = record, row, last
        return kept
