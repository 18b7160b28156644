"""`codealign watch`, `ls`, `report`, `pause`, `resume`, `cancel`: follow and control runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection, Target
from codealign.cli.failures import EXIT_FAILURE, Failure
from codealign.cli.following import follow, print_outcome
from codealign.cli.interrupts import run_async
from codealign.cli.loop_steps import outcome
from codealign.cli.options import (
    connects,
    services,
)
from codealign.cli.progress import message_words, run_state, state_name, waiting_words
from codealign.cli.report.page import write
from codealign.cli.terminal import err, out, printable, whole

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id, its first 6 or more digits, or the run's name.")
]
MaybeRunArgument = Annotated[
    str, typer.Argument(metavar="[RUN]", help="Run id, its first digits, or the run's name. Default: the newest run.")
]
TimingsOption = Annotated[bool, typer.Option("--timings/--no-timings", help="Print times and tokens of each stage.")]

_Change = Callable[[Connection, str], Awaitable[api.RunStatus]]


@connects("coordinator", "dataset")
def watch(
    run: MaybeRunArgument = "",
    timings: TimingsOption = True,
    *,
    where: Target,
) -> None:
    """Show a run's progress until it ends, then its report. Ctrl-C stops watching; the run continues."""

    async def work() -> pb.RunState.ValueType:
        async with services(where, "coordinator", "dataset", start=False) as connection:
            last = await follow(connection, run or await _newest(connection), err)
            await print_outcome(connection, last, out, timings=timings)
            return outcome(last)

    if run_async(work(), lambda: "stopped watching; the run continues") != pb.RUN_STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILURE)


@connects("coordinator", "dataset")
def report(
    run: MaybeRunArgument = "",
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write the report as one self-contained HTML page."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open that page in the browser; needs --html.")] = False,
    timings: TimingsOption = True,
    *,
    where: Target,
) -> None:
    """Print a run's current report. With --html, also write it as a page to share."""
    if open_page and html is None:
        raise Failure("--open needs --html FILE: it opens the page that --html writes")

    async def work() -> api.GetReportResponse:
        async with services(where, "coordinator", "dataset") as connection:
            request = api.GetRunRequest(run=run or await _newest(connection))
            found = await connection.call(connection.clients.coordinator.GetRun, request)
            return await print_outcome(connection, found.run, out, timings=timings)

    told = run_async(work())
    if html is not None:
        written = write(told, html)
        err.print(Text(printable(f"report written to {written}")))
        if open_page:
            typer.launch(written.as_uri())


@connects("coordinator")
def list_runs(
    *,
    where: Target,
) -> None:
    """List the runs, newest first."""

    async def work() -> list[api.RunStatus]:
        async with services(where, *(("coordinator",) if where.explicit else ("coordinator", "dataset"))) as connection:
            request = api.ListRunsRequest(summary_only=True)
            listed = await connection.call(connection.clients.coordinator.ListRuns, request)
            return list(listed.runs)

    runs = run_async(work())
    if not runs:
        out.print("no runs yet; start one with `codealign run`")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "name", "state", "pipeline", "seeds", "model", "started", "version or message"):
        table.add_column(column)
    for status in runs:
        cells = (
            status.id[:12],
            status.config.name,
            run_state(status),
            status.config.pipeline,
            status.config.seeds.collection,
            status.config.model.model,
            status.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M"),
            status.version or waiting_words(status) or status.message,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.print(whole(table))


@connects("coordinator")
def pause(
    run: RunArgument,
    *,
    where: Target,
) -> None:
    """Pause a run. Work in flight is finished and kept; `codealign watch` shows when that is done."""

    async def change(connection: Connection, name: str) -> api.RunStatus:
        request = api.PauseRunRequest(run=name)
        return (await connection.call(connection.clients.coordinator.PauseRun, request)).run

    _change(where, run, change)


@connects("coordinator")
def resume(
    run: RunArgument,
    *,
    where: Target,
) -> None:
    """Resume a run that was paused or cancelled, or that failed."""

    async def change(connection: Connection, name: str) -> api.RunStatus:
        request = api.ResumeRunRequest(run=name)
        return (await connection.call(connection.clients.coordinator.ResumeRun, request)).run

    _change(where, run, change)


@connects("coordinator")
def cancel(
    run: RunArgument,
    *,
    where: Target,
) -> None:
    """Cancel a run immediately. Finished work is kept."""

    async def change(connection: Connection, name: str) -> api.RunStatus:
        request = api.CancelRunRequest(run=name)
        return (await connection.call(connection.clients.coordinator.CancelRun, request)).run

    _change(where, run, change)


def _change(where: Target, run: str, change: _Change) -> None:
    async def work() -> api.RunStatus:
        async with services(where, "coordinator", start=False) as connection:
            return await change(connection, run)

    status = run_async(work())
    parts = (f"run {status.id[:12]}", run_state(status), message_words(status), waiting_words(status), _then(status))
    out.print(Text(printable(": ".join(part for part in parts if part))))


def _then(status: api.RunStatus) -> str:
    """Return what becomes of the loop after a run whose data are finished, or ""."""
    if status.state != pb.RUN_STATE_SUCCEEDED or not status.HasField("loop"):
        return ""
    return f"then {state_name(status.loop.state)}"


async def _newest(connection: Connection) -> str:
    request = api.ListRunsRequest(summary_only=True)
    listed = await connection.call(connection.clients.coordinator.ListRuns, request)
    if not listed.runs:
        raise Failure("no runs yet; start one with `codealign run`")
    return listed.runs[0].id
