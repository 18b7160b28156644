"""Adds records and makes them members of collections: batched and idempotent, each request all or nothing.

Requests of several callers run in one transaction, so that they share its statements and its commit. A request that
cannot be carried out (a parent is missing, its lease is lost) writes nothing and does not affect the others.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError, InvalidArgument, Unavailable
from codealign.dataset.storage import bulk
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.leases import Fence, require_held
from codealign.dataset.storage.rows import Entry, Head, entry, existing, heads, load, within
from codealign.dataset.storage.schema import collection_entries, collection_members, record_parents, tallies
from codealign.dataset.storage.schema import records as records_table
from codealign.dataset.storage.writes import Append, Appended, Join, Result, Write

INSERTED = dataset_pb2.APPEND_OUTCOME_INSERTED
EXISTED = dataset_pb2.APPEND_OUTCOME_EXISTED
CONFLICT = dataset_pb2.APPEND_OUTCOME_CONFLICT

MAX_VIOLATIONS = 20


def append(
    database: Database, records: Sequence[pb.Record], *, collection: str = "", fence: Fence | None = None
) -> list[Appended]:
    """Add validated, complete records; all of them, or none.

    Raises:
        InvalidArgument: A parent is missing.
        FailedPrecondition: The lease is not held.
        NotFound: The lease does not exist.
    """
    (result,) = carry_out(database, [Append([entry(record) for record in records], collection, fence)])
    if isinstance(result, Exception):
        raise result
    return result  # type: ignore[return-value]  # what an Append gives


def join(
    database: Database, ids: Sequence[str], collection: str, *, fence: Fence | None = None, ids_only: bool = False
) -> list[pb.Record]:
    """Make records members of a collection and return them. Missing records are left out.

    Raises:
        InvalidArgument: The records are too large for one response.
        FailedPrecondition: The lease is not held, or a record is of a kind that only a newer release knows.
        NotFound: The lease does not exist.
    """
    (result,) = carry_out(database, [Join(ids, collection, fence, ids_only)])
    if isinstance(result, Exception):
        raise result
    return result  # type: ignore[return-value]  # what a Join gives


def carry_out(database: Database, writes: Sequence[Write]) -> list[Result]:
    """Carry out requests in one transaction, joins before appends. Return their results in the order of the requests.

    Raises:
        Unavailable: The database is unavailable; nothing was written.
        ResourceExhausted: Its disk is full; nothing was written.
    """
    try:
        return database.write(lambda connection: _Transaction(connection).carry_out(writes))
    except Unavailable:
        raise
    except Exception:
        if len(writes) == 1:
            raise
    # An error of one request must not affect the others.
    results: list[Result] = []
    for write in writes:
        try:
            results += carry_out(database, [write])
        except Exception as error:  # each caller gets its own result
            results.append(error)
    return results


@dataclass
class _Transaction:
    connection: Connection
    there: set[str] = field(default_factory=set)
    """Ids named by requests, parents included, that existed before."""
    inserted: dict[str, Entry] = field(default_factory=dict)
    """New records by id."""
    stored: dict[str, Head] = field(default_factory=dict)
    """Records that existed before and are named by requests."""

    def carry_out(self, writes: Sequence[Write]) -> list[Result]:
        results: dict[int, Result] = {}
        lost = self._lost_leases(writes)
        held: list[tuple[int, Write]] = []
        for number, write in enumerate(writes):
            if write.fence in lost:
                results[number] = lost[write.fence]
            else:
                held.append((number, write))
        joins = [(number, write) for number, write in held if isinstance(write, Join)]
        appends = [(number, write) for number, write in held if isinstance(write, Append)]
        self.there = existing(self.connection, _named(write for _, write in held))
        results.update(self._answers(joins))
        appends = self._with_parents(appends, results)
        self._insert([write for _, write in appends])
        carried_out = [write for number, write in held if not isinstance(results.get(number), Exception)]
        named = {key for write in carried_out for key in self._own(write)}
        self.stored = heads(self.connection, named - self.inserted.keys())
        entered = self._enter(carried_out)
        new = [("", item.head) for item in self.inserted.values()]
        _tally(self.connection, new + [(collection, self._head(key)) for collection, key in entered])
        results.update(self._outcomes(appends))
        return [results[number] for number in range(len(writes))]

    def _own(self, write: Write) -> Iterable[str]:
        """Return the ids that a request is about. A join covers only records that existed before, as in its result."""
        return (key for key in write.ids if key in self.there) if isinstance(write, Join) else write.own()

    def _lost_leases(self, writes: Sequence[Write]) -> dict[Fence | None, CodeAlignError]:
        """Return the errors for requests whose fences are not valid."""
        lost: dict[Fence | None, CodeAlignError] = {}
        fences = {write.fence for write in writes if write.fence is not None}
        for fence in sorted(fences, key=lambda fence: (fence.name, fence.token)):
            try:
                require_held(self.connection, fence)
            except CodeAlignError as error:
                lost[fence] = error
        return lost

    def _answers(self, joins: Sequence[tuple[int, Join]]) -> dict[int, Result]:
        """Return the results of joins, or the reasons for which they are refused."""
        answers: dict[int, Result] = {}
        for number, write in joins:
            found = list(self._own(write))
            if write.ids_only:
                answers[number] = [pb.Record(id=key) for key in found]
                continue
            try:
                loaded = load(self.connection, found)
                answer = [loaded[key] for key in found]
                within(answer, write.max_bytes)
            except CodeAlignError as error:
                answers[number] = error
            else:
                answers[number] = answer
        return answers

    def _with_parents(
        self, appends: Sequence[tuple[int, Append]], results: dict[int, Result]
    ) -> list[tuple[int, Append]]:
        """Return the requests whose records' parents exist or are appended before them."""
        earlier: set[str] = set()
        complete = []
        for number, write in appends:
            own: set[str] = set()
            violations = []
            for index, item in enumerate(write.entries):
                for position, parent in enumerate(item.record.parents):
                    if parent not in self.there and parent not in own and parent not in earlier:
                        path = f"records[{index}].parents[{position}]"
                        violations.append((path, f"{parent} is neither stored nor earlier in this list"))
                own.add(item.record.id)
            if violations:
                results[number] = InvalidArgument(violations=violations[:MAX_VIOLATIONS])
            else:
                earlier |= own
                complete.append((number, write))
        return complete

    def _insert(self, appends: Sequence[Append]) -> None:
        """Insert the new records."""
        first: dict[str, Entry] = {}
        for write in appends:
            for item in write.entries:
                if item.record.id not in self.there:
                    first.setdefault(item.record.id, item)
        # Sorted here and below: two transactions that insert the same rows in different orders would deadlock.
        rows = [first[key].row() for key in sorted(first)]
        inserted = bulk.insert_if_new(self.connection, records_table, rows, "id")
        self.inserted = {key: item for key, item in first.items() if key in inserted}
        edges = [edge for key in sorted(self.inserted) for edge in self.inserted[key].edges()]
        bulk.insert(self.connection, record_parents, edges)

    def _enter(self, writes: Sequence[Write]) -> list[tuple[str, str]]:
        """Make the records members, and return the new memberships as (collection, id)."""
        wanted: dict[str, dict[str, None]] = defaultdict(dict)
        for write in writes:
            if write.collection:
                wanted[write.collection].update(dict.fromkeys(self._own(write)))
        entered: list[tuple[str, str]] = []
        for collection, keys in sorted(wanted.items()):
            # Nobody else can have entered what this transaction inserted.
            new = [key for key in keys if key in self.inserted]
            found = self._strangers(collection, [key for key in keys if key in self.stored])
            rows = {key: (collection, self._head(key).kind, key) for key in (*new, *found)}
            bulk.insert(self.connection, collection_members, [rows[key] for key in sorted(new)])
            quickest = bulk.insert_if_new(
                self.connection, collection_members, [rows[key] for key in sorted(found)], "record_id"
            )
            entered += [(collection, key) for key in (*new, *sorted(quickest))]
        self._note_order(entered)
        return entered

    def _note_order(self, entered: Sequence[tuple[str, str]]) -> None:
        """Note when the records became members; within a transaction, in the order of the requests."""
        start = time.time_ns() // 1000
        rows = [
            (collection, *self._head(key)[:5], start + number, key) for number, (collection, key) in enumerate(entered)
        ]
        bulk.insert(self.connection, collection_entries, sorted(rows))

    def _strangers(self, collection: str, keys: Sequence[str]) -> list[str]:
        """Return the stored records that are not yet members."""
        by_kind: dict[int, list[str]] = defaultdict(list)
        for key in keys:
            by_kind[self.stored[key].kind].append(key)
        statement = (
            "SELECT record_id FROM collection_members WHERE collection = {value} AND kind = {value} "
            "AND record_id {in_keys}"
        )
        found: list[str] = []
        for kind, some in by_kind.items():
            members = {row[0] for row in bulk.select_in(self.connection, statement, some, collection, kind)}
            found += [key for key in some if key not in members]
        return found

    def _head(self, key: str) -> Head:
        return self.inserted[key].head if key in self.inserted else self.stored[key]

    def _outcomes(self, appends: Sequence[tuple[int, Append]]) -> dict[int, Result]:
        """Return the outcome of each record, by the index of its request."""
        differing = {
            item.record.id
            for _, write in appends
            for item in write.entries
            if item.record.id in self.stored and not _same(self.stored[item.record.id], item.head)
        }
        loaded = load(self.connection, differing)
        seen: set[str] = set()
        outcomes: dict[int, Result] = {}
        for number, write in appends:
            appended = []
            for item in write.entries:
                key, head = item.record.id, self._head(item.record.id)
                outcome = INSERTED if key in self.inserted and key not in seen else EXISTED
                if head.content_hash != item.head.content_hash:
                    outcome = CONFLICT
                kept = None
                if outcome != INSERTED and not _same(head, item.head):
                    kept = self.inserted[key].record if key in self.inserted else loaded[key]
                appended.append(Appended(key, outcome, kept))
                seen.add(key)
            outcomes[number] = appended
        return outcomes


def _named(writes: Iterable[Write]) -> set[str]:
    """Return every id that the requests name, parents included."""
    named: set[str] = set()
    for write in writes:
        named.update(write.own())
        if isinstance(write, Append):
            for item in write.entries:
                named.update(item.record.parents)
    return named


def _same(one: Head, other: Head) -> bool:
    return one.content_hash == other.content_hash and one.provenance == other.provenance


def _tally(connection: Connection, new: Iterable[tuple[str, Head]]) -> None:
    """Update the tallies for new records and new members, given as (collection, record).

    The last step of a transaction, because appends to one collection wait here for each other's commit.
    """
    counts: dict[tuple[str, int, str, int, int, str], list[float]] = {}
    for collection, head in new:
        sums = counts.setdefault((collection, *head[:5]), [0, 0, 0, 0, 0.0, 0])
        sums[0] += 1
        if head.provenance:
            took = pb.Provenance.FromString(head.provenance)
            sums[1] += took.prompt_tokens
            sums[2] += took.cached_prompt_tokens
            sums[3] += took.generated_tokens
            sums[4] += took.seconds
            sums[5] += took.prompt_tokens if took.cached_prompt_tokens_unknown else 0
    bulk.add_up(connection, tallies, [(*key, *counts[key]) for key in sorted(counts)])
