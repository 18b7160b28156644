"""Follow a run until it ends, tolerating services that are temporarily unreachable, and print the outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import grpc
from rich.console import Console
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure, rpc_failure
from codealign.cli.loop_steps import current_run, has_settled, outcome
from codealign.cli.progress import ProgressDisplay, state_name
from codealign.cli.report.terminal import print_report
from codealign.cli.terminal import printable
from codealign.common.clients import NO_RETRY

CANCEL_SECONDS = 5.0
"""Timeout for the coordinator's answer to a cancellation on exit."""
AWAY_SECONDS = 120.0
"""Seconds that a service may be unreachable, for example while it restarts, before the command gives up."""

_WATCH_SECONDS = 0.5
_RETRY_SECONDS = 1.0

MessageT = TypeVar("MessageT")


async def watch_to_its_end(
    open_stream: Callable[[], AsyncIterator[MessageT]],
    on_message: Callable[[MessageT], bool],
    service: str,
    address: str,
) -> None:
    """Read a stream until its end, reopening it whenever the connection is lost.

    Args:
        open_stream: Opens the stream. Messages may be repeated after it was reopened.
        on_message: Handles a message and returns whether the stream may end after it. A stream that ends elsewhere is
            reopened.
        service: The service's name, for errors.
        address: The service's address, for errors.

    Raises:
        Failure: The service refuses the request, or is unreachable for too long.
    """
    away_since: float | None = None
    may_end = False
    clock = asyncio.get_running_loop().time
    while True:
        try:
            async for message in open_stream():
                away_since, may_end = None, on_message(message)
        except grpc.aio.AioRpcError as error:
            away_since = away_since if away_since is not None else clock()
            gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            if not gone or clock() - away_since > AWAY_SECONDS:
                raise rpc_failure(error, service, address) from error
        else:
            if may_end:
                return
        await asyncio.sleep(_RETRY_SECONDS)


async def follow(connection: Connection, run: str, console: Console) -> api.RunStatus:
    """Show the progress of a run and its loop until they end or pause, and return the last status.

    In a series, the runs of the following rounds are shown too; the status is the last round's.

    Args:
        connection: To the coordinator.
        run: The run's id.
        console: Output console for the progress.

    Raises:
        Failure: The coordinator refuses the request, or is unreachable for too long.
    """
    last = await _follow_one(connection, run, console)
    while (current := current_run(last)) != last.id:
        rounds = last.series.rounds
        console.print(Text(f"round {rounds[-1].number} of {last.series.config.number}: run {current[:12]}"))
        last = await _follow_one(connection, current, console)
    return last


async def _follow_one(connection: Connection, run: str, console: Console) -> api.RunStatus:
    last = api.RunStatus()
    request = api.WatchRunRequest(run=run, interval_seconds=_WATCH_SECONDS)

    def open_stream() -> AsyncIterator[api.WatchRunResponse]:
        return connection.clients.stream(connection.clients.coordinator.WatchRun, request, retry=NO_RETRY)

    with ProgressDisplay(console) as display:

        def on_message(message: api.WatchRunResponse) -> bool:
            nonlocal last
            last = message.run
            display.update(last)
            return has_settled(last)

        await watch_to_its_end(open_stream, on_message, "coordinator", connection.addresses.coordinator)
    return last


async def cancel_started(connection: Connection, run_id: str) -> None:
    """Cancel a run if its services stop with this command. Otherwise the next start would resume it."""
    if not connection.started:
        return
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CANCEL_SECONDS):
            await connection.clients.coordinator.CancelRun(api.CancelRunRequest(run=run_id), timeout=CANCEL_SECONDS)


async def print_outcome(
    connection: Connection, status: api.RunStatus, console: Console, *, timings: bool
) -> api.GetReportResponse:
    """Print a run's report, its version, and the next commands.

    Args:
        connection: To the coordinator and the dataset service.
        status: The run's status.
        console: Output console.
        timings: Print times and tokens of each stage.

    Returns:
        The report.
    """
    request = api.GetReportRequest(run=status.id)
    report = await connection.call(connection.clients.coordinator.GetReport, request, timeout=600)
    version, row_id = None, ""
    if report.run.version:
        version = await _version(connection, report.run.version)
        scan = ds.ScanRequest(kind=pb.KIND_EXAMPLE, collection=status.id, page_size=1)
        rows = await connection.call(connection.clients.dataset.Scan, scan)
        row_id = rows.records[0].id if rows.records else ""
    print_report(console, report, version=version, row_id=row_id, timings=timings)
    short, state = status.id[:12], outcome(status)
    if status.loop.message and state == status.loop.state != pb.RUN_STATE_SUCCEEDED:
        console.print(Text(printable(f"after the data: {status.loop.message}")))
    if status.series.message and not report.rounds:  # otherwise the report says it
        console.print(Text(printable(f"series: {status.series.message}")))
    if state == pb.RUN_STATE_PAUSED:
        console.print(Text(f"paused; to continue: codealign resume {short}"))
    elif state in (pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED):
        console.print(Text(f"{state_name(state)}; to continue from the finished work: codealign resume {short}"))
    return report


async def _version(connection: Connection, name: str) -> ds.Version:
    try:
        response = await connection.call(connection.clients.dataset.GetVersion, ds.GetVersionRequest(name=name))
    except Failure as failure:
        return ds.Version(name=name, url=printable(failure.message))
    return response.version
