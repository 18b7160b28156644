"""`codealign seeds`: collect and list seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.collecting import Stored, read_seeds, store_seeds
from codealign.cli.connection import Connection, Target
from codealign.cli.family import is_record_id
from codealign.cli.interrupts import run_async
from codealign.cli.options import (
    connects,
    services,
)
from codealign.cli.seeds import Collected, collection_name
from codealign.cli.terminal import err, out, printable, whole
from codealign.common.records import is_internal
from codealign.common.sequences import batched

_IDS_AT_ONCE = 100

app = typer.Typer(
    no_args_is_help=True, help="Collect seeds: the documented functions from which a pipeline derives tasks."
)


@app.command("collect")
@connects("dataset")
def collect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH|stdlib", help="Directory of Python files, or `stdlib` for Python's standard library."
        ),
    ],
    collection: Annotated[
        str,
        typer.Option(
            "--collection", help="Collection to add to. Default: a name derived from the directory and its content."
        ),
    ] = "",
    files: Annotated[
        bool,
        typer.Option("--files", help="Take whole files, for pipelines that draw snippets from them."),
    ] = False,
    *,
    where: Target,
) -> None:
    """Collect the documented functions of a directory as seeds.

    Every module-level function with a docstring becomes a seed. Runs decide later which seeds are good enough, and
    record which ones they drop and why. With --files, every file becomes a seed, whatever it contains.
    """
    collected = read_seeds(source, err, whole=files)
    name = collection or collection_name(source, collected.seeds)
    stored = run_async(_collect(where, collected, name))
    out.print(Text(f"collection {stored.collection}: {stored.inserted:,} new, {stored.existed:,} existing"))


async def _collect(where: Target, collected: Collected, name: str) -> Stored:
    async with services(where, "dataset") as connection:
        return await store_seeds(connection, collected, name, err)


@app.command("ls")
@connects("dataset")
def list_collections(
    *,
    where: Target,
) -> None:
    """List the collections of seeds."""
    sizes = run_async(_seed_counts(where))
    if not sizes:
        out.print("no seeds yet: codealign seeds collect stdlib")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("collection")
    table.add_column("seeds", justify="right")
    for name, number in sizes.items():
        table.add_row(Text(printable(name)), f"{number:,}")
    out.print(whole(table))


async def _seed_counts(where: Target) -> dict[str, int]:
    async with services(where, "dataset") as connection:
        listed = await connection.call(connection.clients.dataset.ListCollections, ds.ListCollectionsRequest())
        names = [item.name for item in listed.collections if not is_internal(item.name)]
        runs = await _runs_among(connection, names)
        sizes = {name: await _seeds_in(connection, name) for name in names if name not in runs}
    return {name: number for name, number in sizes.items() if number}


async def _seeds_in(connection: Connection, collection: str) -> int:
    counted = await connection.call(connection.clients.dataset.Count, ds.CountRequest(collection=collection))
    return sum(item.count for item in counted.counts if item.kind == pb.KIND_SEED)


async def _runs_among(connection: Connection, collections: Sequence[str]) -> set[str]:
    """Return the collections that belong to runs: they have the run's id as their name, and contain its seeds."""
    ids = [name for name in collections if is_record_id(name)]
    runs = set[str]()
    for some in batched(ids, _IDS_AT_ONCE):
        found = await connection.call(connection.clients.dataset.Get, ds.GetRequest(ids=some))
        runs.update(record.id for record in found.records if record.kind == pb.KIND_RUN)
    return runs
