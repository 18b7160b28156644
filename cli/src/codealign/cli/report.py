"""What became of a run: its funnel, the reasons for drops, and what each stage took."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as coordinator
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.cli.progress import state_name
from codealign.cli.terminal import count, duration, printable


def funnel_table(report: coordinator.GetReportResponse) -> Table:
    """Each stage's items, what was kept and dropped, and a line for each reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("items", "kept", "dropped"):
        table.add_column(column, justify="right")
    table.add_column("dropped for")
    for stage in report.stages:
        reasons = sorted(stage.reasons.items(), key=lambda item: (-item[1], item[0]))
        first = _reason(reasons[0]) if reasons else ""
        table.add_row(
            stage.stage, f"{stage.items:,}", f"{stage.kept:,}", f"{stage.items - stage.kept:,}", Text(printable(first))
        )
        for reason in reasons[1:]:
            table.add_row("", "", "", "", Text(printable(_reason(reason))))
    return table


def _reason(reason: tuple[str, int]) -> str:
    return f"{reason[0]} {reason[1]:,}"


def cost_table(report: coordinator.GetReportResponse) -> Table:
    """Each stage's time and tokens."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("time", "prompt tokens", "of these cached", "generated tokens"):
        table.add_column(column, justify="right")
    for stage in report.stages:
        tokens = stage.prompt_tokens or stage.generated_tokens
        table.add_row(
            stage.stage,
            duration(stage.wall_seconds) if stage.wall_seconds else "",
            f"{stage.prompt_tokens:,}" if tokens else "",
            f"{stage.cached_prompt_tokens:,}" if tokens else "",
            f"{stage.generated_tokens:,}" if tokens else "",
        )
    return table


def print_report(
    console: Console,
    report: coordinator.GetReportResponse,
    *,
    version: dataset.Version | None,
    row_id: str,
    timings: bool,
) -> None:
    """Print all of it, and what to do next.

    Args:
        console: Where.
        report: The run's.
        version: The published version, where there is one.
        row_id: One of its rows, for the example of a next command. Empty: none.
        timings: Print what each stage took (which differs from one run to the next).
    """
    run = report.run
    name = f" ({run.config.name})" if run.config.name else ""
    console.print(Text(printable(f"run {run.id}{name}: {state_name(run.state)}")))
    if run.message:
        console.print(Text(printable(run.message)))
    console.print()
    console.print(funnel_table(report))
    if report.verdicts:
        verdicts = sorted(report.verdicts.items(), key=lambda item: (-item[1], item[0]))
        console.print()
        console.print(Text("verdicts: " + ", ".join(f"{key.removeprefix('VERDICT_')} {n:,}" for key, n in verdicts)))
    if timings:
        console.print()
        console.print(cost_table(report))
    console.print()
    if version is None:
        console.print(Text(f"{count(report.rows, 'row')}, nothing published"))
        return
    console.print(Text(f"{count(version.rows, 'row')} published as {version.name}"))
    console.print(Text(f"  {printable(version.url)}"))
    console.print(Text("next:"))
    if row_id:
        console.print(Text(f"  codealign data lineage {row_id[:12]}"))
    console.print(Text(f"  codealign data export {version.name} -o rows.jsonl"))
