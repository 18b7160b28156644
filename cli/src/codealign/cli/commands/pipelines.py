"""`codealign pipelines`: describe the pipelines that the coordinator offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Target
from codealign.cli.interrupts import run_async
from codealign.cli.options import (
    connects,
    services,
)
from codealign.cli.run_config import run_pipeline
from codealign.cli.terminal import out, printable

_ROLES: Mapping[int, str] = {
    api.STAGE_ROLE_SEEDS: "filters the collected seeds",
    api.STAGE_ROLE_WRITING: "written by a model",
    api.STAGE_ROLE_EXECUTION: "executed and judged in the sandbox",
    api.STAGE_ROLE_SELECTION: "selects the rows",
}


@connects("coordinator")
def pipelines(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="Pipeline to describe: its stages, their defaults, and the reasons for drops."
        ),
    ] = "",
    *,
    where: Target,
) -> None:
    """List the available pipelines, or describe one."""

    async def work() -> list[api.Pipeline]:
        async with services(where, *(("coordinator",) if where.explicit else ("coordinator", "dataset"))) as connection:
            if name:
                return [await run_pipeline(connection, name)]
            request = api.ListPipelinesRequest()
            return list((await connection.call(connection.clients.coordinator.ListPipelines, request)).pipelines)

    found = run_async(work())
    if name:
        _describe(found[0])
    else:
        _list(found)


def _list(found: list[api.Pipeline]) -> None:
    """Print lines rather than a table, which would cut names in a narrow terminal."""
    if not found:
        out.print("this coordinator has no pipelines")
    for one in found:
        _say(f"{one.name}: {one.description}", style="bold")
        _say(f"  {' → '.join(stage.name for stage in one.stages)}")


def _describe(found: api.Pipeline) -> None:
    _say(f"{found.name}: {found.description}")
    _say(f"few-shot sets: {', '.join(found.few_shot_sets) or 'none'}")
    for stage in found.stages:
        out.print()
        _say(f"{stage.name}: {stage.title}", style="bold")
        parent = f", for each item of {stage.parent}" if stage.parent else ""
        _say(f"  {_ROLES.get(stage.role, 'unknown role')}{parent}, version {stage.version}")
        if stage.description:
            _say(f"  {stage.description}")
        if stage.HasField("defaults"):
            _say(f"  defaults: {defaults(stage.defaults)}")
        for draw in stage.properties:
            drawn = next((one.values for one in stage.defaults.properties if one.name == draw.name), draw.values)
            _say(f"  {draw.name}: drawn from {', '.join(drawn)}; valid: {', '.join(draw.values)}")
        if stage.reasons:
            executes = stage.role == api.STAGE_ROLE_EXECUTION
            _say("  verdicts besides PASSED" if executes else "  reasons for drops")
            width = max(map(len, stage.reasons))
            for reason, meaning in sorted(stage.reasons.items()):
                _say(f"    {reason:<{width}}  {meaning}")


def defaults(settings: pb.StageSettings) -> str:
    """Return a stage's settings in one line: "max_tokens 128, few_shots 8"."""
    shown = []
    for field, value in settings.ListFields():
        if field.name in ("stage", "version", "properties"):
            continue
        text = value.model if isinstance(value, pb.ModelChoice) else f"{value:g}" if isinstance(value, float) else value
        shown.append(f"{field.name} {text}")
    return ", ".join(shown)


def _say(text: str, style: str = "") -> None:
    out.print(Text(printable(text), style=style))
