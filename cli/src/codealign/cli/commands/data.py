"""`codealign data`: records, their lineage, and published versions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer
from rich.table import Table
from rich.text import Text

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.connection import Connection, Target
from codealign.cli.enums import parse_value, value_names
from codealign.cli.failures import Failure
from codealign.cli.family import find_record, find_run, load_family, record_digits
from codealign.cli.interrupts import run_async
from codealign.cli.lineage import lineage_tree
from codealign.cli.options import (
    connects,
    services,
)
from codealign.cli.origins import origins_of
from codealign.cli.records_view import record_view
from codealign.cli.terminal import count, err, out, printable, size, whole
from codealign.common.records import is_internal

app = typer.Typer(no_args_is_help=True, help="Inspect records and their lineage; publish and export versions.")

RecordArgument = Annotated[str, typer.Argument(metavar="ID", help="Record id, or its first 6 or more digits.")]


_FORMATS = "|".join(name.lower() for name in value_names(ds.ExportFormat.DESCRIPTOR))


@app.command("ls")
@connects("dataset")
def list_data(
    *,
    where: Target,
) -> None:
    """List collections with their sizes, and published versions."""

    async def work() -> tuple[list[ds.Collection], list[ds.Version]]:
        async with services(where, "dataset") as connection:
            client = connection.clients.dataset
            listed = await connection.call(client.ListCollections, ds.ListCollectionsRequest())
            versions = await connection.call(client.ListVersions, ds.ListVersionsRequest())
            shown = [item for item in listed.collections if not is_internal(item.name)]
            return shown, list(versions.versions)

    collections, versions = run_async(work())
    table = Table(box=None, pad_edge=False)
    table.add_column("collection")
    table.add_column("records", justify="right")
    for item in collections:
        table.add_row(Text(printable(item.name)), f"{item.records:,}")
    out.print(whole(table) if collections else "no collections yet: codealign seeds collect stdlib")
    out.print()
    out.print(_versions_table(versions) if versions else "no published versions yet")


@app.command("versions")
@connects("dataset")
def list_versions(
    *,
    where: Target,
) -> None:
    """List the published versions, newest first."""

    async def work() -> list[ds.Version]:
        async with services(where, "dataset") as connection:
            listed = await connection.call(connection.clients.dataset.ListVersions, ds.ListVersionsRequest())
            return list(listed.versions)

    versions = run_async(work())
    out.print(_versions_table(versions) if versions else "no published versions yet")


def _versions_table(versions: list[ds.Version]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("version")
    table.add_column("rows", justify="right")
    for column in ("title", "from", "where"):
        table.add_column(column)
    for version in versions:
        cells = (version.title, version.collection, version.url)
        table.add_row(version.name, f"{version.rows:,}", *(Text(printable(cell)) for cell in cells))
    return whole(table)


@app.command("show")
@connects("dataset")
def show(
    record: RecordArgument,
    *,
    where: Target,
) -> None:
    """Show one record in full."""
    digits = record_digits(record)

    async def work() -> None:
        async with services(where, "dataset") as connection:
            out.print(record_view(await find_record(connection, digits)))

    run_async(work())


@app.command("lineage")
@connects("dataset")
def lineage(
    record: RecordArgument,
    run: Annotated[str, typer.Option("--run", help="Restrict the output to this run (id or name).")] = "",
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Print everything in full, including few-shot prompts and completions.")
    ] = False,
    *,
    where: Target,
) -> None:
    """Explain a record: its seed, and every prompt, response, verdict and decision.

    For a row, this shows why it was chosen and the other responses to its instruction were not. For a seed, it shows
    everything derived from it. Models that were tuned on earlier runs' data are named with version, run and round.
    """
    digits = record_digits(record)

    async def work() -> None:
        async with services(where, "dataset") as connection:
            run_id = await _run_id(connection, run) if run else ""
            family = await load_family(connection, digits, run_id)
            origins = await origins_of(connection, family.models())
            out.print(lineage_tree(family, prompts=prompts, origins=origins), soft_wrap=False)

    run_async(work())


async def _run_id(connection: Connection, name: str) -> str:
    found = await find_run(connection, name)
    if found is None:
        raise Failure(f"no run with this name or id: {name} (see `codealign ls`)")
    return found.id


@app.command("publish")
@connects("dataset")
def publish(
    collection: Annotated[
        str, typer.Argument(metavar="COLLECTION|RUN", help="Collection name, or a run's id or name.")
    ],
    title: Annotated[str, typer.Option("--title", help="Human-readable title.")] = "",
    verdict: Annotated[
        list[str] | None,
        typer.Option("--verdict", help="Accept rows with this verdict (repeatable). Default: only PASSED."),
    ] = None,
    not_executed: Annotated[
        bool, typer.Option("--not-executed", help="The rows were never executed. The version and its card say so.")
    ] = False,
    *,
    where: Target,
) -> None:
    """Publish the rows of a collection, or of a run, as an immutable version."""
    verdicts = [_verdict(name) for name in verdict or ()]
    if verdicts and not_executed:
        raise Failure("--verdict and --not-executed exclude each other: rows that were never executed have no verdict")

    async def work() -> ds.PublishVersionResponse:
        async with services(where, "dataset") as connection:
            run = await find_run(connection, collection)
            request = ds.PublishVersionRequest(
                collection=run.id if run else collection, title=title, verdicts=verdicts, not_executed=not_executed
            )
            return await connection.call(connection.clients.dataset.PublishVersion, request, timeout=3600)

    response = run_async(work())
    version = response.version
    existed = " (already existed)" if response.existed else ""
    out.print(Text(f"{count(version.rows, 'row')} published as {version.name}{existed}"))
    out.print(Text(f"  {printable(version.url)}"))


def _verdict(name: str) -> sandbox.Verdict.ValueType:
    number = parse_value("--verdict", sandbox.Verdict.DESCRIPTOR, name, without=["INFRASTRUCTURE"])
    return cast(sandbox.Verdict.ValueType, number)


@app.command("export")
@connects("dataset")
def export(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version name, as `codealign data versions` lists it.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file; - for standard output.")],
    fmt: Annotated[str, typer.Option("--format", metavar=_FORMATS, help="File format.")] = "jsonl",
    *,
    where: Target,
) -> None:
    """Write a published version's rows to one file."""
    number = parse_value("--format", ds.ExportFormat.DESCRIPTOR, fmt)
    request = ds.ExportRequest(version=version, format=cast(ds.ExportFormat.ValueType, number))
    written = run_async(_export(where, request, output))
    err.print(Text(f"{size(written)} written to {output}"))


async def _export(where: Target, request: ds.ExportRequest, output: Path) -> int:
    written = 0
    async with services(where, "dataset") as connection:
        with _writing(output) as file:
            async with contextlib.aclosing(connection.stream(connection.clients.dataset.Export, request)) as parts:
                async for part in parts:
                    written += file.write(part.data)
    return written


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[BinaryIO]:
    """Open the output file. It gets its name only once it is complete. Devices and pipes are written to as they are."""
    if str(output) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with _explained(output):
        if output.is_dir():
            raise Failure(f"-o {output} is a directory: name a file")
        is_special = output.exists() and not output.is_file()
    if is_special:
        with _explained(output), output.open("wb") as file:
            yield file
        return
    partial = output.with_name(output.name + ".partial")
    try:
        with _explained(output):
            with partial.open("wb") as file:
                yield file
            partial.replace(output)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write {output} ({error.strerror or error})") from None
