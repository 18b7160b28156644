"""Print a report on a terminal: funnel, cost of each stage, one row, training, comparison of base and tuned model."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as coordinator
from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.progress import run_state, waiting_words
from codealign.cli.report import charts, target
from codealign.cli.report.agreement import sentence
from codealign.cli.report.rounds import NOTE, round_lines, series_line
from codealign.cli.report.row_history import RowHistory, row_history
from codealign.cli.report.scores import Match, false_alarms, interval_of, levels, matches, meaning
from codealign.cli.report.sections import cached_of, cached_words, speed, training_sentence
from codealign.cli.report.wording import chance, loss, percent_interval, points, points_interval, short
from codealign.cli.terminal import count, duration, printable, whole

_PREVIEW = 300


def funnel_table(report: coordinator.GetReportResponse) -> Table:
    """Return each stage's items, kept and dropped, with a line for each reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("items", "kept", "dropped"):
        table.add_column(column, justify="right")
    table.add_column("dropped for")
    for stage in report.stages:
        reasons = sorted(stage.reasons.items(), key=lambda item: (-item[1], item[0]))
        first = _reason(reasons[0]) if reasons else ""
        table.add_row(
            Text(printable(stage.stage)),
            f"{stage.items:,}",
            f"{stage.kept:,}",
            f"{stage.items - stage.kept:,}",
            Text(printable(first)),
        )
        for reason in reasons[1:]:
            table.add_row("", "", "", "", Text(printable(_reason(reason))))
    return whole(table)


def _reason(reason: tuple[str, int]) -> str:
    return f"{reason[0]} {reason[1]:,}"


def cost_table(report: coordinator.GetReportResponse) -> Table:
    """Return each stage's time and tokens."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("time", "prompt tokens", "cached", "generated tokens"):
        table.add_column(column, justify="right")
    for stage in report.stages:
        tokens = stage.prompt_tokens or stage.generated_tokens
        table.add_row(
            Text(printable(stage.stage)),
            duration(stage.wall_seconds) if stage.wall_seconds else "",
            f"{stage.prompt_tokens:,}" if tokens else "",
            cached_words(*cached_of([stage])) if tokens else "",
            f"{stage.generated_tokens:,}" if tokens else "",
        )
    return whole(table)


def mix_table(summary: pb.TargetSummary) -> Table:
    """Return the shares of difficulties and categories among instructions and rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tasks")
    for column in ("instructions", "share", "rows", "share"):
        table.add_column(column, justify="right")
    for each in target.shares(summary):
        table.add_row(
            Text(printable(f"{each.property} {each.value}")),
            f"{each.instructions:,}",
            each.of_instructions,
            f"{each.rows:,}",
            each.of_rows,
        )
    return whole(table)


def training_lines(record: pb.Record, *, timings: bool) -> list[str]:
    """Return lines about a training: its data, and its loss as a one-line curve."""
    made = record.checkpoint
    lines = [f"training {short(made.revision)}: {training_sentence(made)}" + (f" ({made.setup})" if made.setup else "")]
    if made.losses:
        curve = charts.spark([point.loss for point in made.losses])
        lines.append(f"  loss {loss(made.losses[0].loss)} → {loss(made.losses[-1].loss)}  {curve}")
    elif made.final_loss:
        lines.append(f"  final loss {loss(made.final_loss)}")
    if timings and (rate := speed(record)):
        lines.append(f"  {rate}")
    return lines


def match_views(match: Match) -> list[RenderableType]:
    """Return the comparison of a tuned model with its base: a table, then what each difference means."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("benchmark")
    table.add_column("base → tuned")
    for column in ("95% base", "95% tuned", "difference", "95%", "only base", "only tuned", "p-value"):
        table.add_column(column, justify="right")
    for pair in match.pairs:
        one = pair.comparison
        table.add_row(
            Text(printable(pair.title)),
            levels(pair),
            percent_interval(interval_of(pair.base)),
            percent_interval(interval_of(pair.tuned)),
            points(one.difference),
            points_interval(one.interval if one.HasField("interval") else None),
            f"{one.base_better:,}",
            f"{one.tuned_better:,}",
            chance(one.p_value) if one.problems else "",
        )
    sentences = [*(meaning(pair) for pair in match.pairs), false_alarms(match.pairs)]
    return [
        Text(printable(f"base vs. tuned ({match.title}), pass@1")),
        whole(table),
        *(Text(printable(sentence)) for sentence in sentences if sentence),
    ]


def evaluation_table(evaluations: Sequence[coordinator.Evaluation]) -> Table:
    """Return pass@k with its interval for each evaluation."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("benchmark", "model", "prompt", "problems", "samples"):
        table.add_column(column, justify="right" if column in ("problems", "samples") else "left")
    table.add_column("pass@k (95% interval)")
    for found in evaluations:
        figures = []
        for k in sorted(found.pass_at_k):
            interval = (
                f" ({found.intervals[k].low:.1%} to {found.intervals[k].high:.1%})" if k in found.intervals else ""
            )
            figures.append(f"pass@{k} {found.pass_at_k[k]:.1%}{interval}")
        undecided = f"; {found.undecided} undecided" if found.undecided else ""
        if figures and found.problems_done < found.problems_total:
            undecided += "; unfinished"
        table.add_row(
            Text(printable(found.benchmark)),
            Text(printable(found.model)),
            Text(printable(found.prompt_style)),
            f"{found.problems_done:,}/{found.problems_total:,}",
            str(found.samples),
            ", ".join(figures) + undecided,
        )
    return whole(table)


def round_views(report: coordinator.GetReportResponse) -> list[RenderableType]:
    """Return the rounds of the run's series: a line about the series, a table, and what its columns mean."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("round", "run", "version"):
        table.add_column(column)
    for column in ("rows", "passed", "concepts", "distinct-2 tasks", "distinct-2 answers", "similarity"):
        table.add_column(column, justify="right")
    table.add_column("pass@1 (95%), change")
    for line in round_lines(report):
        cells = (
            *(str(line.number), line.run, line.version, line.rows, line.pass_rate, line.concepts),
            *(line.instructions, line.responses, line.similarity, line.score_text),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return [Text(printable(f"series: {series_line(report.run.series)}")), whole(table), Text(NOTE, style="dim")]


def row_lines(history: RowHistory) -> list[str]:
    """Return a few lines about one row, from its seed to its verdict."""
    lines = [f"one row, {short(history.row.id)}:"]
    width = max((len(step.title) for step in history.steps), default=0)
    width = max(width, len("attempt 10"))
    lines += [f"  {step.title.lower():<{width}}  {_preview(step.line)}" for step in history.steps]
    for attempt in history.attempts:
        chosen = ", chosen" if attempt.chosen else ""
        detail = f" ({_preview(attempt.detail)})" if attempt.detail else ""
        name = f"attempt {attempt.number}"
        lines.append(f"  {name:<{width}}  {attempt.verdict or 'not executed'}{detail}{chosen}")
        lines += [f"  {'':<{width}}  {_preview(decision)}" for decision in attempt.decisions]
    return lines


def _preview(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW else f"{line[:_PREVIEW].rstrip()} …"


def print_report(
    console: Console,
    report: coordinator.GetReportResponse,
    *,
    version: dataset.Version | None,
    row_id: str,
    timings: bool,
) -> None:
    """Print the whole report, and the next commands.

    Args:
        console: Output console.
        report: The run's report.
        version: The published version, or None.
        row_id: A row of the version, for the example commands. Empty: the report's example row, if any.
        timings: Print times and tokens, which differ between runs.
    """
    run = report.run
    name = f" ({run.config.name})" if run.config.name else ""
    console.print(Text(printable(f"run {run.id}{name}: {run_state(run)}")))
    if run.message and run.state != pb.RUN_STATE_SUCCEEDED:  # on success, the rest of the report says it
        console.print(Text(printable(run.message)))
    if run.waiting_for:
        console.print(Text(printable(waiting_words(run))))
    console.print()
    console.print(funnel_table(report))
    if report.verdicts:
        verdicts = sorted(report.verdicts.items(), key=lambda item: (-item[1], item[0]))
        console.print()
        named = ", ".join(f"{key.removeprefix('VERDICT_')} {number:,}" for key, number in verdicts)
        console.print(Text(printable(f"verdicts: {named}")))
    if report.HasField("agreement"):
        _print_lines(console, [f"attempts compared: {sentence(report.agreement)}"])
    if timings:
        console.print()
        console.print(cost_table(report))
    if told := target.sentences(report.target):
        _print_lines(console, told)
        if report.target.mix:
            console.print()
            console.print(mix_table(report.target))
    history = row_history(report)
    if history is not None:
        _print_lines(console, row_lines(history))
    for record in report.checkpoints:
        _print_lines(console, training_lines(record, timings=timings))
    found = matches(report)
    for match in found:
        console.print()
        for view in match_views(match):
            console.print(view)
    paired = {one.id for match in found for pair in match.pairs for one in (pair.base, pair.tuned)}
    alone = [one for one in report.evaluations if one.id not in paired]
    if alone:
        console.print()
        console.print(evaluation_table(alone))
    if report.rounds:
        console.print()
        for view in round_views(report):
            console.print(view)
    console.print()
    _print_next(console, report, version, row_id or (history.row.id if history else ""))


def _print_lines(console: Console, lines: list[str]) -> None:
    console.print()
    for line in lines:
        console.print(Text(printable(line)))


def _print_next(
    console: Console, report: coordinator.GetReportResponse, version: dataset.Version | None, row_id: str
) -> None:
    if version is None:
        console.print(Text(f"{count(report.rows, 'row')}, nothing published"))
        return
    name = printable(version.name)
    console.print(Text(f"{count(version.rows, 'row')} published as {name}"))
    console.print(Text(f"  {printable(version.url)}"))
    console.print(Text("next:"))
    if row_id:
        console.print(Text(f"  codealign data lineage {row_id[:12]}"))
    console.print(Text(f"  codealign data dropped {report.run.id[:12]}"))
    console.print(Text(f"  codealign data export {name} -o rows.jsonl"))
    console.print(Text(f"  codealign report {report.run.id[:12]} --html report.html"))
