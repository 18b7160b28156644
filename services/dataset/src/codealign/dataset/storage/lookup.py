"""Looks up records by id or by the beginning of an id, and counts records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.rows import load, within
from codealign.dataset.storage.schema import records, tallies

ID_DIGITS = 32
# With more matches of a prefix than this, their exact number is useless.
_COUNTED_MATCHES = 1000


@dataclass(frozen=True)
class Tally:
    """Number of records of one kind under one configuration, and their total usage."""

    kind: int
    label: str
    rejected_kind: int
    outcome: int
    stage_config_id: str
    records: int
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    unknown_prompt_tokens: int = 0


def get(database: Database, ids: Sequence[str], *, max_bytes: int = 2**25) -> list[pb.Record]:
    """Return records in the order of the ids, which may be prefixes. Missing records are left out.

    Raises:
        InvalidArgument: A prefix is ambiguous, or the records exceed `max_bytes` in total.
        FailedPrecondition: A record is of a kind that this program does not know.
    """

    def work(connection: Connection) -> list[pb.Record]:
        whole = [resolve(connection, given, f"ids[{index}]") for index, given in enumerate(ids)]
        found = load(connection, [key for key in whole if key])
        answer = [found[key] for key in whole if key in found]
        within(answer, max_bytes)
        return answer

    return database.read(work, snapshot=True)


def resolve(connection: Connection, given: str, path: str) -> str:
    """Return the full id that begins with these digits, or "" if there is none.

    Raises:
        InvalidArgument: There are several; `path` names the request's field.
    """
    if len(given) == ID_DIGITS:
        return given
    # "g" follows the last hexadecimal digit.
    matching = select(records.c.id).where(records.c.id >= given, records.c.id < given + "g").limit(_COUNTED_MATCHES)
    matches = list(connection.execute(matching).scalars())
    if len(matches) > 1:
        number = f"{len(matches)} or more" if len(matches) == _COUNTED_MATCHES else str(len(matches))
        raise InvalidArgument(path, f"{given} is ambiguous, {number} ids begin with it: use more digits")
    return matches[0] if matches else ""


def count(database: Database, collection: str = "") -> list[Tally]:
    """Return the number of records of each kind in a collection, with their usage. Empty: the whole store."""
    columns = [column for column in tallies.columns if column is not tallies.c.collection]
    statement = select(*columns).where(tallies.c.collection == collection).order_by(*columns[:5])
    return database.read(lambda connection: [Tally(*row) for row in connection.execute(statement)])


def collections(database: Database) -> list[tuple[str, int]]:
    """Return each collection's name and size."""
    statement = (
        select(tallies.c.collection, func.sum(tallies.c.records))
        .where(tallies.c.collection != "")
        .group_by(tallies.c.collection)
        .order_by(tallies.c.collection)
    )
    return database.read(lambda connection: [(name, int(size)) for name, size in connection.execute(statement)])
