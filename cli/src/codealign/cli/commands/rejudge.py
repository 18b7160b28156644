"""`codealign rejudge`: parse and judge the completions of a finished run again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.connection import Target
from codealign.cli.failures import EXIT_FAILURE
from codealign.cli.following import cancel_started, follow, print_outcome
from codealign.cli.interrupts import run_async
from codealign.cli.options import (
    EngineOption,
    ModelOption,
    PresetOption,
    RecordingOption,
    connects,
    preset_options,
    services,
)
from codealign.cli.presets import DEFAULT, load
from codealign.cli.run_config import run_pipeline, writes
from codealign.cli.run_file import largest
from codealign.cli.stack import DATA_SERVICES, UNWRITTEN_SERVICES, Options
from codealign.cli.terminal import err, out, printable, warn

_MIB = 2**20


@dataclass
class _Begun:
    run_id: str = ""
    started_services: bool = True

    def interrupted(self) -> str:
        """Return the message for a user who interrupts the command."""
        if self.run_id and not self.started_services:
            return f"stopped watching; the run continues (codealign watch {self.run_id[:12]})"
        return "stopped; finished work is kept. Run the same command to continue"


@connects("coordinator", "dataset")
def rejudge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, its first 6 or more digits, or the run's name.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new run.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="Sandbox profile. Default: the run's.")] = "",
    runs: Annotated[
        int,
        typer.Option("--runs", min=0, max=10, show_default=False, help="Executions of each program. 0: as in the run."),
    ] = 0,
    wall_seconds: Annotated[
        float,
        typer.Option(
            "--wall-seconds", min=0, show_default=False, help="Wall-clock limit of each program. 0: as in the run."
        ),
    ] = 0.0,
    cpu_seconds: Annotated[
        float,
        typer.Option(
            "--cpu-seconds", min=0, show_default=False, help="CPU time limit of each program. 0: as in the run."
        ),
    ] = 0.0,
    memory: Annotated[
        int,
        typer.Option(
            "--memory",
            min=0,
            max=largest(sandbox.Limits, "memory_bytes") // _MIB,
            show_default=False,
            help="Memory limit of each program in MiB. 0: as in the run.",
        ),
    ] = 0,
    timings: Annotated[
        bool, typer.Option("--timings/--no-timings", help="Print times and tokens of each stage.")
    ] = True,
    preset: PresetOption = DEFAULT,
    model: ModelOption = "",
    engine: EngineOption = "",
    recording: RecordingOption = None,
    *,
    where: Target,
) -> None:
    """Parse and judge the completions of a finished run again, as a new run.

    The new run uses the current parsers, rules and runners, and the limits given here. Existing completions are not
    generated again. If fewer answers pass, the model draws further ones, as in the original run. --preset, --model and
    --engine say how to start services that are not running, as for `codealign run`; no model is started for a run of
    imported data.
    """
    options = preset_options(load(preset), Options(model, engine, recording))
    options.check()
    warn(err, options.warning())
    limits = sandbox.Limits(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds, memory_bytes=memory * _MIB)
    execution = pb.ExecutionSettings(profile=profile, runs=runs)
    if limits.ListFields():
        execution.limits.CopyFrom(limits)
    request = api.RejudgeRunRequest(run=run, name=name)
    if execution.ListFields():
        request.execution.CopyFrom(execution)
    begun = _Begun()

    async def work() -> pb.RunState.ValueType:
        async with services(where, *await _needs(where, run), options=options) as connection:
            begun.started_services = connection.started
            made = await connection.call(connection.clients.coordinator.RejudgeRun, request)
            begun.run_id = made.run.id
            of = made.run.config.rejudges
            said = "already exists; nothing has changed since" if made.existed else "new"
            err.print(Text(printable(f"run {made.run.id[:12]}: {said} (rejudges {of[:12] or run})")))
            try:
                last = await follow(connection, made.run.id, err)
            except asyncio.CancelledError:
                await cancel_started(connection, made.run.id)
                raise
            await print_outcome(connection, last, out, timings=timings)
            if of:  # otherwise nothing has changed, and this is the given run
                out.print(Text(f"to compare: codealign data diff {of[:12]} {made.run.id[:12]}"))
            return last.state

    if run_async(work(), begun.interrupted) != pb.RUN_STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILURE)


async def _needs(where: Target, run: str) -> tuple[str, ...]:
    """Return the services to connect to, without inference for a run in which no model writes."""
    if where.explicit:
        return ("coordinator", "dataset")
    async with services(where, "coordinator", "dataset") as connection:
        found = await connection.call(connection.clients.coordinator.GetRun, api.GetRunRequest(run=run))
        pipeline = await run_pipeline(connection, found.run.config.pipeline)
    return DATA_SERVICES if writes(pipeline) else UNWRITTEN_SERVICES
