"""Print what a run would do and cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.cli.terminal import printable, whole


def plan_table(plan: api.PlanRunResponse) -> Table:
    """Return the most items and tokens of each stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("items, at most", "prompt tokens", "generated tokens"):
        table.add_column(column, justify="right")
    for stage in plan.stages:
        tokens = stage.prompt_tokens or stage.generated_tokens
        table.add_row(
            Text(printable(stage.stage)),
            f"{stage.items:,}",
            f"{stage.prompt_tokens:,}" if tokens else "",
            f"{stage.generated_tokens:,}" if tokens else "",
        )
    return whole(table)


def print_plan(console: Console, plan: api.PlanRunResponse, state: str = "") -> None:
    """Print a plan: the run's id and state, upper bounds by stage, the forecast and notes.

    Args:
        console: Where to.
        plan: The plan.
        state: State of the run with this configuration. Empty: there is none yet.
    """
    console.print(Text(f"run {plan.run_id[:12]}: {f'exists already, {state}' if state else 'not started'}"))
    console.print()
    console.print(plan_table(plan))
    console.print()
    if plan.HasField("forecast"):
        console.print(Text(printable(f"forecast: {plan.forecast.text}")))
    for note in plan.notes:
        console.print(Text(printable(f"note: {note}"), style="yellow"))
