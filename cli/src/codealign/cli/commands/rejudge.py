"""`codealign rejudge`: a finished run's completions read and judged again, and what came of it."""

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
from codealign.cli.stack import DATA_SERVICES, Options
from codealign.cli.terminal import err, out, printable, warn

_MIB = 2**20


@dataclass
class _Begun:
    run_id: str = ""
    started_services: bool = True

    def interrupted(self) -> str:
        """What to tell a person who has stopped it."""
        if self.run_id and not self.started_services:
            return f"stopped watching; the run goes on (codealign watch {self.run_id[:12]})"
        return "stopped; nothing finished is lost; the same command goes on"


@connects("coordinator", "dataset")
def rejudge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, the id's first 6 digits or more, or its name.")],
    name: Annotated[str, typer.Option("--name", help="A name for the new run.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="Another runner profile than the run's.")] = "",
    runs: Annotated[int, typer.Option("--runs", min=0, max=10, help="Of each program. 0: as in the run.")] = 0,
    wall_seconds: Annotated[
        float, typer.Option("--wall-seconds", min=0, help="Of each program. 0: as in the run.")
    ] = 0.0,
    cpu_seconds: Annotated[
        float, typer.Option("--cpu-seconds", min=0, help="Of each program. 0: as in the run.")
    ] = 0.0,
    memory: Annotated[int, typer.Option("--memory", min=0, help="MiB of each program. 0: as in the run.")] = 0,
    timings: Annotated[bool, typer.Option("--timings/--no-timings", help="Print what each stage took.")] = True,
    preset: PresetOption = DEFAULT,
    model: ModelOption = "",
    engine: EngineOption = "",
    recording: RecordingOption = None,
    *,
    where: Target,
) -> None:
    """Make a new run from a finished one: its completions are read and judged again, none is asked for anew.

    Parsers, rules and runners are those that there are now; limits may be given. Where fewer answers pass, further ones
    are drawn, as the run itself would have done: only for these the model is asked. --preset, --model and
    --engine say how to start services that are not up, as for `codealign run`.
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
    needs = ("coordinator", "dataset") if where.explicit else DATA_SERVICES
    begun = _Begun()

    async def work() -> pb.RunState.ValueType:
        async with services(where, *needs, options=options) as connection:
            begun.started_services = connection.started
            made = await connection.call(connection.clients.coordinator.RejudgeRun, request)
            begun.run_id = made.run.id
            of = made.run.config.rejudges
            said = "was judged so before; nothing has changed since" if made.existed else "new"
            err.print(Text(printable(f"run {made.run.id[:12]}: {said} (judges {of[:12] or run} again)")))
            try:
                last = await follow(connection, made.run.id, err)
            except asyncio.CancelledError:
                await cancel_started(connection, made.run.id)
                raise
            await print_outcome(connection, last, out, timings=timings)
            if of:  # else nothing has changed since: it is the run that was named
                out.print(Text(f"what changed: codealign data diff {of[:12]} {made.run.id[:12]}"))
            return last.state

    if run_async(work(), begun.interrupted) != pb.RUN_STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILURE)
