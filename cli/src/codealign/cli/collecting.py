"""Read a directory's functions and store them as Seed records in the dataset service; find given instructions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import seeds
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.family import find_run
from codealign.cli.seeds import Collected
from codealign.cli.terminal import count, printable

BATCH = 500
"""Records per append request."""
BATCH_BYTES = 4 * 2**20
"""Bytes per append request, so that hundreds of whole files do not exceed what a message may have."""
SHOWN_PROBLEMS = 10
"""Unreadable files to name, so that a directory full of them does not flood the screen."""


@dataclass(frozen=True)
class Stored:
    """Result of storing seeds in a collection."""

    collection: str
    inserted: int
    existed: int


def read_seeds(source: str, console: Console, *, whole: bool = False) -> Collected:
    """Read the seeds of a directory, with a progress bar on a terminal, and report unreadable files.

    Args:
        source: A path, or "stdlib".
        console: Where to report.
        whole: Take whole files instead of their functions.

    Raises:
        Failure: There are no seeds.
    """
    columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(source, total=None)
        collected = seeds.read(
            source, lambda done, total: progress.update(task, completed=done, total=total), whole=whole
        )
    for problem in collected.problems[:SHOWN_PROBLEMS]:
        console.print(Text(f"cannot read {printable(str(problem))}", style="yellow"))
    more = len(collected.problems) - SHOWN_PROBLEMS
    if more > 0:
        console.print(Text(f"... and {more:,} more", style="yellow"))
    files, unreadable = count(collected.files, "file"), f"{len(collected.problems):,} unreadable"
    if whole:
        told = f"{len(collected.seeds):,} of {files} of {source} ({unreadable}, too large or empty)"
    else:
        functions = f"{count(len(collected.seeds), 'function')} with docstrings"
        told = f"{functions} in {files} of {source} ({collected.undocumented:,} without one, {unreadable})"
    console.print(Text(told))
    return collected


async def store_seeds(connection: Connection, collected: Collected, collection: str, console: Console) -> Stored:
    """Append seeds to a collection.

    Raises:
        Failure: The dataset service refuses the seeds or cannot be reached.
    """
    inserted = existed = 0
    columns = (TextColumn("storing seeds"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(collected.seeds))
        stored = 0
        for batch in _batches(map(seeds.seed_record, collected.seeds)):
            request = ds.AppendRequest(records=batch, collection=collection)
            response = await connection.call(connection.clients.dataset.Append, request)
            new = sum(result.outcome == ds.APPEND_OUTCOME_INSERTED for result in response.results)
            inserted += new
            existed += len(batch) - new
            stored += len(batch)
            progress.update(task, completed=stored)
    return Stored(collection, inserted, existed)


def _batches(records: Iterable[pb.Record]) -> Iterator[list[pb.Record]]:
    """Yield the records in lists that one request may have."""
    batch: list[pb.Record] = []
    size = 0
    for record in records:
        if batch and (len(batch) == BATCH or size + record.ByteSize() > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += record.ByteSize()
    if batch:
        yield batch


async def given_instructions(connection: Connection, pipeline: str, given: str) -> str:
    """Return the collection of instructions that a pipeline begins with.

    Args:
        connection: To the dataset service.
        pipeline: The pipeline's name, for messages.
        given: A collection's name, or a run's id, first digits or name.

    Raises:
        Failure: Nothing is given, or it has no instructions.
    """
    if not given:
        raise Failure(
            f"--collection: pipeline {pipeline} begins with instructions: name the run whose instructions to use (see "
            "`codealign ls`), or a collection with instructions"
        )
    if await _instructions_in(connection, given):
        return given
    run = await find_run(connection, given)
    if run is None:
        raise Failure(
            f"--collection {given}: no run has this id or name, and no collection of this name has instructions"
        )
    if not await _instructions_in(connection, run.id):
        raise Failure(f"--collection {given}: run {run.id[:12]} has no instructions (yet)")
    return run.id


async def _instructions_in(connection: Connection, collection: str) -> int:
    counted = await connection.call(connection.clients.dataset.Count, ds.CountRequest(collection=collection))
    return sum(item.count for item in counted.counts if item.kind == pb.KIND_INSTRUCTION)
