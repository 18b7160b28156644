"""`codealign data diff`: compare the rows of two versions or runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from codealign.cli.connection import Target
from codealign.cli.diffing import Change, Diff, Summary, find_side, grown, unfinished
from codealign.cli.failures import Failure
from codealign.cli.interrupts import run_async
from codealign.cli.options import (
    connects,
    services,
)
from codealign.cli.terminal import count, err, out, print_json_line, printable, warn

_SHORT = 12
_MAX_DETAIL = 200
_SIGNS: Mapping[str, tuple[str, str]] = {"changed": ("~", "yellow"), "went": ("-", "red"), "came": ("+", "green")}
_TITLES: Mapping[str, str] = {
    "changed": "changed, by what differs",
    "went": "only in A, by the reason why B lacks them",
    "came": "only in B, by the reason why A lacks them",
}

SideArgument = typer.Argument(
    metavar="VERSION|RUN", help="Version name, or a run's id, first digits of the id, or name."
)


@connects("dataset")
def diff(
    before: Annotated[str, SideArgument],
    after: Annotated[str, SideArgument],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON Lines: an object for each row that differs, then the summary.")
    ] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Print only the counts.")] = False,
    *,
    where: Target,
) -> None:
    """Compare the rows of two versions or runs, and say for each difference why.

    Rows are matched by the completion that they were parsed from, otherwise by seed and instruction.
    """
    if before == after:
        raise Failure(f"{before} is given twice: name two different versions or runs")

    async def work() -> Summary:
        async with services(where, "dataset") as connection:
            sides = await find_side(connection, before), await find_side(connection, after)
            if sides[0].collection == sides[1].collection:
                raise Failure(
                    f"{before} and {after} are of one collection, {sides[0].collection}: name versions or runs of two. "
                    "`codealign data export` gives the rows of each version"
                )
            for side in sides:
                warn(err, await unfinished(connection, side))
            found = Diff(connection, *sides)
            async with contextlib.aclosing(found.changes()) as changes:
                async for change in changes:
                    if not summary:
                        _print(change, as_json=as_json)
            for side, rows in zip(sides, found.summary.rows, strict=True):
                warn(err, grown(side, rows))
            return found.summary

    found = run_async(work())
    if as_json:
        print_json_line({"summary": found.as_json()})
    else:
        _print_summary(found, before, after)


def _print(change: Change, *, as_json: bool) -> None:
    if as_json:
        print_json_line(asdict(change))
        return
    sign, style = _SIGNS[change.kind]
    ids = " → ".join(part[:_SHORT] for part in (change.before, change.after) if part)
    detail = " ".join(change.detail.removesuffix(f": {change.reason}").split())
    detail = detail if len(detail) <= _MAX_DETAIL else f"{detail[:_MAX_DETAIL].rstrip()} …"
    text = f"{sign} {ids}  {change.reason}" + (f": {detail}" if detail and detail != change.reason else "")
    out.print(Text(printable(text), style=style))


def _print_summary(found: Summary, before: str, after: str) -> None:
    a, b = found.rows
    out.print(Text(printable(f"A {before}: {count(a, 'row')}; B {after}: {count(b, 'row')}; {found.same:,} identical")))
    for kind, title in _TITLES.items():
        reasons = found.reasons[kind]
        if reasons:
            out.print(Text(f"{reasons.total():,} {title}:"))
            for reason, number in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                out.print(Text(printable(f"  {number:>7,}  {reason}")))
