"""`codealign data dropped`: list what a run dropped, with the reason for each item."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.text import Text

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.connection import Connection, Target
from codealign.cli.failures import Failure
from codealign.cli.family import find_run
from codealign.cli.interrupts import run_async
from codealign.cli.lineage import verdict_name
from codealign.cli.missing_rows import Reason, drop_reason
from codealign.cli.options import (
    connects,
    services,
)
from codealign.cli.terminal import count, err, out, print_json_line, printable

_SAYING = (pb.KIND_DECISION, pb.KIND_REJECTION, pb.KIND_VERDICT)
"""Kinds of record that say why an item was dropped."""
_SHORT = 12
_MAX_DETAIL = 160


@dataclass(frozen=True)
class Dropped:
    """An item that a run dropped."""

    id: str
    """Record to pass to `codealign data lineage`: the item, or its parent if the completion could not be parsed."""
    reason: str
    detail: str


async def dropped_items(connection: Connection, run: pb.Record) -> AsyncGenerator[Dropped, None]:
    """Yield the dropped items of a run: those that a rule dropped, that could not be parsed, and that failed.

    If the run takes failures as rows, a verdict is only told of responses that are no row and that no rule dropped.
    """
    from codealign.coordinator.runs.strategies import STRATEGIES  # slow to import

    strategy = STRATEGIES.get(run.run.selection.strategy)  # None: of another release
    # If failures are taken, a verdict alone says nothing: a failing response may be a row, and a passing one none.
    takes_failures = strategy is not None and strategy.takes(sb.VERDICT_FAILED_ASSERTION)
    takes_passes = strategy is None or strategy.takes(sb.VERDICT_PASSED)
    told = await _rows(connection, run.id) if takes_failures else None
    for kind in _SAYING:
        async with contextlib.aclosing(connection.scan(ds.ScanRequest(collection=run.id, kind=kind))) as records:
            async for record in records:
                if not record.parents or (kind == pb.KIND_VERDICT and told is not None and record.parents[0] in told):
                    continue
                found = drop_reason(record)
                if found is None and not takes_passes and kind == pb.KIND_VERDICT:
                    found = Reason(verdict_name(record.verdict.result.verdict), "this run takes responses that fail")
                if found is not None:
                    if told is not None:
                        told.add(record.parents[0])
                    yield Dropped(record.parents[0], found.name, found.detail)


async def _rows(connection: Connection, run_id: str) -> set[str]:
    """Return the ids of the responses that became rows."""
    scan = ds.ScanRequest(collection=run_id, kind=pb.KIND_EXAMPLE)
    async with contextlib.aclosing(connection.scan(scan)) as rows:
        return {row.parents[0] async for row in rows if row.parents}


@connects("dataset")
def dropped(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, its first 6 or more digits, or the run's name.")],
    reason: Annotated[
        str,
        typer.Option("--reason", help="Only items with this reason or group of reasons, e.g. FAILED_ASSERTION, seed."),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Print at most this many items. 0: all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines: an object for each item.")] = False,
    *,
    where: Target,
) -> None:
    """List the items that a run dropped, each with its reason.

    `codealign data lineage ID` then shows the item with its prompts, its answer and its verdict.
    """

    async def work() -> tuple[Counter[str], int]:
        reasons, printed = Counter[str](), 0
        async with services(where, "dataset") as connection:
            found = await find_run(connection, run)
            if found is None:
                raise Failure(
                    f"no run has the id or name {run!r} (of an id, give at least 6 digits); list runs: codealign ls"
                )
            async with contextlib.aclosing(dropped_items(connection, found)) as items:
                async for item in items:
                    reasons[item.reason] += 1
                    if _matches(item.reason, reason) and (printed < limit or not limit):
                        printed += 1
                        _print(item, as_json=as_json)
        return reasons, printed

    reasons, printed = run_async(work())
    chosen = sum(number for name, number in reasons.items() if _matches(name, reason))
    if reason and not chosen:
        valid = ", ".join(f"{name} {number:,}" for name, number in sorted(reasons.items())) or "none"
        raise Failure(f"--reason {reason}: no item was dropped for it; reasons of this run: {valid}")
    if printed < chosen:
        err.print(Text(f"{count(chosen, 'item')}; {printed:,} shown (--limit)"))


def _matches(reason: str, wanted: str) -> bool:
    """Return whether a reason is the wanted one or belongs to its group: "seed.no-return" to "seed"."""
    return not wanted or reason == wanted or reason.startswith(f"{wanted}.")


def _print(item: Dropped, *, as_json: bool) -> None:
    if as_json:
        print_json_line(asdict(item))
        return
    detail = " ".join(item.detail.split())
    detail = detail if len(detail) <= _MAX_DETAIL else f"{detail[:_MAX_DETAIL].rstrip()} …"
    text = f"{item.id[:_SHORT]}  {item.reason}" + (f": {detail}" if detail and detail != item.reason else "")
    out.print(Text(printable(text)))
