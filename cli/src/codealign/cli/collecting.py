"""Read a directory's functions and store them as Seed records in the dataset service."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.cli import seeds
from codealign.cli.connection import Connection
from codealign.cli.seeds import Collected
from codealign.cli.terminal import count, printable

BATCH = 500
"""Records per append request."""
SHOWN_PROBLEMS = 10
"""Unreadable files to name, so that a directory full of them does not flood the screen."""


@dataclass(frozen=True)
class Stored:
    """Result of storing seeds in a collection."""

    collection: str
    inserted: int
    existed: int


def read_seeds(source: str, console: Console) -> Collected:
    """Read the seeds of a directory, with a progress bar on a terminal, and report unreadable files.

    Raises:
        Failure: There are no seeds.
    """
    columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(source, total=None)
        collected = seeds.read(source, lambda done, total: progress.update(task, completed=done, total=total))
    for problem in collected.problems[:SHOWN_PROBLEMS]:
        console.print(Text(f"cannot read {printable(str(problem))}", style="yellow"))
    more = len(collected.problems) - SHOWN_PROBLEMS
    if more > 0:
        console.print(Text(f"... and {more:,} more", style="yellow"))
    console.print(
        Text(
            f"{count(len(collected.seeds), 'function')} with docstrings in {count(collected.files, 'file')} of {source}"
            f" ({collected.undocumented:,} without one, {len(collected.problems):,} unreadable)"
        )
    )
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
        for start in range(0, len(collected.seeds), BATCH):
            batch = [seeds.seed_record(seed) for seed in collected.seeds[start : start + BATCH]]
            request = ds.AppendRequest(records=batch, collection=collection)
            response = await connection.call(connection.clients.dataset.Append, request)
            new = sum(result.outcome == ds.APPEND_OUTCOME_INSERTED for result in response.results)
            inserted += new
            existed += len(batch) - new
            progress.update(task, completed=start + len(batch))
    return Stored(collection, inserted, existed)
