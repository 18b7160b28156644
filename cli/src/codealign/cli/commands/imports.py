"""`codealign import`: other projects' data as records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.text import Text

from codealign.cli.connection import Target
from codealign.cli.failures import EXIT_FAILURE, Failure
from codealign.cli.importing import hub
from codealign.cli.importing.format import Format
from codealign.cli.importing.formats import named
from codealign.cli.importing.reading import (
    Readable,
    Tally,
    collection_name,
    local_sources,
    parse_columns,
    readable,
    rows_of,
)
from codealign.cli.importing.rows import REASONS, Problem
from codealign.cli.importing.storing import Batches
from codealign.cli.interrupts import run_async
from codealign.cli.options import connects, services
from codealign.cli.terminal import count, err, out, printable
from codealign.common.sequences import batched

SHOWN_PROBLEMS = 20
"""Problems that are printed, so that a broken file does not flood the screen."""
_ROWS_AT_ONCE = 16
MAX_LICENSE = 200


@dataclass
class _Problems:
    """Problems: counted, the first ones printed, all of them written to a file if there is one."""

    tally: Tally
    file: IO[str] | None
    shown: int = field(default=0)

    def __call__(self, problem: Problem) -> None:
        self.tally.problems[problem.reason] += 1
        if self.file is not None:
            self.file.write(json.dumps(asdict(problem)) + "\n")
        if self.shown < SHOWN_PROBLEMS:
            err.print(Text(printable(str(problem)), style="yellow"))
        elif self.shown == SHOWN_PROBLEMS:
            err.print(Text("further problems are counted, not printed (--problems FILE has all)", style="yellow"))
        self.shown += 1


@connects("dataset")
def import_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH|HUB_ID", help="A file, a directory of files, or a data set of the hub (owner/name)."
        ),
    ],
    fmt: Annotated[str, typer.Option("--format", metavar="NAME", help="Format: rows, selfcodealign or commitpackft.")],
    collection: Annotated[
        str, typer.Option("--collection", help="Collection to add to. Default: a name derived from the files.")
    ] = "",
    license_id: Annotated[str, typer.Option("--license", metavar="SPDX", help="Licence of rows that state none.")] = "",
    columns: Annotated[
        str,
        typer.Option(
            "--columns", metavar="ROLE=COLUMN,...", help="Columns to read. Default: a recognized layout's columns."
        ),
    ] = "",
    problems: Annotated[
        Path | None,
        typer.Option(
            "--problems", metavar="FILE", help="Write everything that could not be read to this file (JSONL)."
        ),
    ] = None,
    *,
    where: Target,
) -> None:
    """Import other projects' data, so that it can be executed, selected and trained on.

    Rows become seeds, concepts, instructions and responses that name the file they came from. Importing a file again
    changes nothing: an interrupted import continues when the command is repeated. Run the pipeline `imported` on the
    collection next.
    """
    form, given = named(fmt), parse_columns(columns)
    if len(license_id) > MAX_LICENSE or not license_id.isprintable():
        raise Failure(f"--license: must be at most {MAX_LICENSE} printable characters")
    if hub.is_hub_id(source):
        err.print(Text(f"no such file here: looking for the data set {source} on the hub"))
        found = hub.sources(source)
    else:
        found = local_sources(Path(source))
    tally, imported = Tally(), 0
    file = _opened(problems) if problems else None
    try:
        told = _Problems(tally, file)
        chosen = readable(found, form, given, license_id, told)
        for each in chosen:
            _say_columns(each)
        if chosen:
            name = collection or collection_name(source, [each.record for each in chosen])
            batches = run_async(_store(where, chosen, form, license_id, name, tally, told))
            imported = batches.inserted + batches.existed
            out.print(
                Text(f"collection {printable(name)}: {batches.inserted:,} rows new, {batches.existed:,} existing")
            )
        _say_counts("not imported", tally.problems, REASONS)
        _say_counts("dropped by filters", tally.dropped, form.rules)
    finally:
        if file is not None:
            file.close()
    if not imported:
        raise Failure(f"no row of {source} was imported", EXIT_FAILURE)


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise Failure(f"--problems: cannot write {path} ({error.strerror})") from None


async def _store(
    where: Target,
    chosen: list[Readable],
    form: Format,
    license_id: str,
    collection: str,
    tally: Tally,
    told: _Problems,
) -> Batches:
    async with services(where, "dataset") as connection:
        batches = Batches(connection, collection, told)
        for each in chosen:
            await batches.add([each.record])
            rows = batched(rows_of(each, form, license_id, tally, told), _ROWS_AT_ONCE)
            # Reading and parsing take time; the connection must stay responsive.
            while some := await asyncio.to_thread(next, rows, None):
                for row, made in some:
                    await batches.add(made, row)
        await batches.flush()
        return batches


def _say_columns(file: Readable) -> None:
    mapping = ", ".join(f"{role}={column}" for role, column in file.taken.columns.items())
    layout = f" ({file.taken.title}; others: --columns)" if file.taken.title else ""
    err.print(Text(printable(f"{file.source.name}: columns {mapping}{layout}")))


def _say_counts(what: str, counts: Mapping[str, int], meanings: Mapping[str, str]) -> None:
    total = sum(counts.values())
    if not total:
        return
    out.print(Text(f"{count(total, 'row')} {what}:"))
    for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        out.print(Text(f"  {number:>9,}  {reason}: {meanings.get(reason, '')}"))
