"""Adding records: batched, idempotent, all or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.dataset.storage.database import Database, insert
from codealign.dataset.storage.leases import Fence, require_held
from codealign.dataset.storage.rows import existing, load, parent_rows, record_row, tally_key
from codealign.dataset.storage.schema import collection_members, record_parents, tallies
from codealign.dataset.storage.schema import records as records_table

INSERTED = dataset_pb2.APPEND_OUTCOME_INSERTED
EXISTED = dataset_pb2.APPEND_OUTCOME_EXISTED
CONFLICT = dataset_pb2.APPEND_OUTCOME_CONFLICT

MAX_VIOLATIONS = 20


@dataclass(frozen=True)
class Appended:
    """What became of one record."""

    id: str
    outcome: dataset_pb2.AppendOutcome.ValueType
    kept: pb.Record | None = None
    """What the store holds, where that is not what was sent."""


def append(
    database: Database, records: Sequence[pb.Record], *, collection: str = "", fence: Fence | None = None
) -> list[Appended]:
    """Add records; all of them, or none.

    Args:
        database: Where to.
        records: Checked and complete (with id and content hash).
        collection: They become its members, those that existed included. Empty: none.
        fence: Refuse unless this lease is held; checked in the same transaction, so that a holder that lost it
            cannot write any more, however late its call arrives.

    Raises:
        InvalidArgument: A parent is missing.
        FailedPrecondition: The lease is not held.
        NotFound: There is no such lease.
    """

    def work(connection: Connection) -> list[Appended]:
        if fence is not None:
            require_held(connection, fence)
        _require_parents(connection, records)
        first: dict[str, pb.Record] = {}
        for record in records:
            first.setdefault(record.id, record)
        inserted = _insert(connection, first)
        stored = load(connection, [key for key in first if key not in inserted])
        kept = {key: stored.get(key, record) for key, record in first.items()}
        joined = _join(connection, collection, kept) if collection else set()
        _tally(connection, [("", kept[key]) for key in inserted] + [(collection, kept[key]) for key in joined])
        return _results(records, kept, inserted)

    return database.write(work)


def _require_parents(connection: Connection, records: Sequence[pb.Record]) -> None:
    there = existing(connection, (parent for record in records for parent in record.parents))
    earlier: set[str] = set()
    violations = []
    for index, record in enumerate(records):
        for position, parent in enumerate(record.parents):
            if parent not in there and parent not in earlier:
                path = f"records[{index}].parents[{position}]"
                violations.append((path, f"{parent} is neither stored nor earlier in this list"))
        earlier.add(record.id)
    if violations:
        raise InvalidArgument(violations=violations[:MAX_VIOLATIONS])


def _insert(connection: Connection, first: dict[str, pb.Record]) -> set[str]:
    """Insert those that are new; gives their ids."""
    if not first:
        return set()
    # Sorted here and below: two transactions that insert the same rows in different orders would deadlock.
    rows = [record_row(first[key]) for key in sorted(first)]
    statement = insert(connection, records_table).on_conflict_do_nothing().returning(records_table.c.id)
    inserted = set(connection.execute(statement, rows).scalars())
    edges = [edge for key in sorted(inserted) for edge in parent_rows(first[key])]
    if edges:
        connection.execute(insert(connection, record_parents), edges)
    return inserted


def _join(connection: Connection, collection: str, kept: dict[str, pb.Record]) -> set[str]:
    """Make the records members; gives the ids of those that were none yet."""
    members = [
        {"collection": collection, "kind": record.kind, "record_id": key} for key, record in sorted(kept.items())
    ]
    if not members:
        return set()
    statement = insert(connection, collection_members).on_conflict_do_nothing()
    return set(connection.execute(statement.returning(collection_members.c.record_id), members).scalars())


def _tally(connection: Connection, new: Sequence[tuple[str, pb.Record]]) -> None:
    """Count new records and new members, as (collection, record).

    The last thing in a transaction, since appends of one collection wait here for each other's commit.
    """
    counts = Counter((collection, *tally_key(record)) for collection, record in new)
    if not counts:
        return
    statement = insert(connection, tallies)
    statement = statement.on_conflict_do_update(
        index_elements=list(tallies.primary_key.columns),
        set_={"records": tallies.c.records + statement.excluded.records},
    )
    names = [column.name for column in tallies.columns]
    connection.execute(
        statement, [dict(zip(names, (*key, count), strict=True)) for key, count in sorted(counts.items())]
    )


def _results(records: Sequence[pb.Record], kept: dict[str, pb.Record], inserted: set[str]) -> list[Appended]:
    results = []
    seen: set[str] = set()
    for record in records:
        holds = kept[record.id]
        if record.id in inserted and record.id not in seen:
            results.append(Appended(record.id, INSERTED))
        elif holds.content_hash != record.content_hash:
            results.append(Appended(record.id, CONFLICT, holds))
        else:
            same = holds.provenance == record.provenance
            results.append(Appended(record.id, EXISTED, None if same else holds))
        seen.add(record.id)
    return results
