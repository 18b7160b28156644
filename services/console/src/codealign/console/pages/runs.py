"""Runs: the list, and one run with its stages, reasons, cost, settings and models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.loop_steps import has_settled
from codealign.cli.progress import message_words, run_state, state_name, waiting_words
from codealign.cli.report import charts, comparing, listing, recipe, sections, target
from codealign.cli.report.agreement import COLUMNS, agreement_view
from codealign.cli.report.outcome import cautions, executes, headline
from codealign.cli.report.scores import matches, ordered
from codealign.cli.report.wording import Words, short
from codealign.console import series
from codealign.console.reading import Gathering, NotThere, Reader, first
from codealign.console.rendering import gather, page
from codealign.console.texts import SHOWN, record_url, records_url

MOST_RUNS = 500
_GOOD, _BAD = (pb.RUN_STATE_SUCCEEDED,), (pb.RUN_STATE_FAILED,)


@dataclass(frozen=True)
class StageLine:
    """Progress of a stage."""

    name: str
    title: str
    bar: Markup
    progress: api.StageProgress
    share: str


@dataclass(frozen=True)
class RunLine:
    """A run in the list."""

    status: api.RunStatus
    name: str
    state: str
    tone: str
    message: str
    forecast: str
    """What a run with a target is going to reach; "" if nothing draws for it."""
    stages: tuple[StageLine, ...]


@dataclass(frozen=True)
class KindCount:
    """Records of one kind in a collection."""

    kind: pb.Kind.ValueType
    number: int
    url: str


async def runs(request: Request) -> Response:
    """Show the runs, newest first, with the progress of those that are at work."""
    gathered = gather(request)
    listed = await gathered.part(
        lambda reader: reader.call(reader.clients.coordinator.ListRuns, api.ListRunsRequest(summary_only=True))
    )
    known: Sequence[pb.Record] = ()
    if listed is None:  # the records say less, but they are there
        known = (
            await gathered.part(lambda reader: first(reader.scan(ds.ScanRequest(kind=pb.KIND_RUN)), MOST_RUNS)) or ()
        )
    statuses = listed.runs[:MOST_RUNS] if listed else ()
    return page(
        request,
        "runs",
        gathered,
        section="runs",
        title="Runs",
        live=any(not has_settled(status) for status in statuses),
        runs=[_line(status) for status in statuses],
        known=known,
        hidden=len(listed.runs) - len(statuses) if listed else 0,
    )


def _line(status: api.RunStatus) -> RunLine:
    working = not has_settled(status)
    return RunLine(
        status=status,
        name=status.config.name or f"run {short(status.id)}",
        state=run_state(status),
        tone=tone(status.state),
        message=status.version or waiting_words(status) or message_words(status),
        forecast=status.forecast.text if working else "",
        stages=tuple(stage_lines(status.stages, Words(api.Pipeline()))) if working else (),
    )


def tone(state: pb.RunState.ValueType) -> str:
    """Return how a state is coloured."""
    return "good" if state in _GOOD else "bad" if state in _BAD else "busy" if state == pb.RUN_STATE_RUNNING else "calm"


def stage_lines(stages: Sequence[api.StageProgress], words: Words) -> list[StageLine]:
    """Return the progress of every stage, each bar relative to what the stage expects."""
    found = []
    for stage in stages:
        whole = max(stage.expected, stage.done) or 1
        found.append(
            StageLine(
                name=stage.stage,
                title=words.title(stage.stage),
                bar=charts.bar(("kept", stage.kept / whole), ("dropped", stage.dropped / whole), css="bar live"),
                progress=stage,
                share=f"{stage.done / whole:.0%}" if stage.expected else "",
            )
        )
    return found


async def run(request: Request) -> Response:
    """Show a run."""
    gathered, name = gather(request), request.path_params["run"]
    status = await gathered.part(
        lambda reader: reader.call(reader.clients.coordinator.GetRun, api.GetRunRequest(run=name)), named=True
    )
    if status is None:
        return await _without_coordinator(request, gathered, name)
    found = status.run
    report, counted = await asyncio.gather(
        gathered.part(
            lambda reader: reader.call(reader.clients.coordinator.GetReport, api.GetReportRequest(run=found.id))
        ),
        gathered.part(lambda reader: reader.call(reader.clients.dataset.Count, ds.CountRequest(collection=found.id))),
    )
    counts = counted.counts if counted else ()
    report = report or _without_report(found, counts)
    words = Words(report.pipeline)
    agreement = agreement_view(report, lambda record_id: record_url(record_id, found.id))
    rounds, working = series.view(report), not has_settled(found)
    return page(
        request,
        "run",
        gathered,
        section="runs",
        title=found.config.name or f"run {short(found.id)}",
        live=working or found.series.state == pb.RUN_STATE_RUNNING,
        working=working,
        run=found,
        state=run_state(found),
        tone=tone(found.state),
        message=waiting_words(found) or message_words(found),
        begins_with=next((stage.makes for stage in report.pipeline.stages), pb.KIND_SEED),
        headline=headline(report) if report.stages else "",
        cautions=cautions(report),
        stages=stage_lines(found.stages, words),
        target=recipe.target(found.config.target),
        reached=_reached(report),
        target_told=target.sentences(report.target),
        mix=target.shares(report.target),
        series=rounds,
        series_state=(state_name(rounds.state), tone(rounds.state)) if rounds else (),
        funnel=sections.funnel(report.stages, words),
        stage_names=[stage.stage for stage in report.stages],
        reason_urls=reason_urls(found.id, counts),
        executes=executes(report),
        verdicts=sections.verdict_counts(report),
        agreement=agreement,
        task=listing.markdown(agreement.instruction[:SHOWN], "the instruction whose answers were compared")
        if agreement
        else "",
        columns=COLUMNS,
        costs=sections.costs(report.stages, words),
        totals=sections.totals(report.stages),
        per_row=_per_row(report),
        kinds=kind_counts(found.id, counts),
        models=recipe.models(found.config),
        generation=recipe.generation(found.config),
        writing=[one.stage for one in found.config.stages],
        facts=recipe.facts(found.config),
        trainings=[(record, sections.training(place, record)) for place, record in enumerate(report.checkpoints)],
        matches=[comparing.match_view(place, match) for place, match in enumerate(matches(report))],
        evaluations=comparing.evaluation_lines(ordered(report.evaluations, found.config.model.revision), words),
        steps=[(step, state_name(step.state) if step.state else "", tone(step.state)) for step in found.loop.steps],
    )


async def _without_coordinator(request: Request, gathered: Gathering, name: str) -> Response:
    """Show what the records say about a run while its coordinator is away."""

    async def find(reader: Reader) -> pb.Record | None:
        answer = await reader.call(reader.clients.dataset.Get, ds.GetRequest(ids=[name], allow_prefix=True))
        return answer.records[0] if answer.records else None

    record = await gathered.part(find, named=True)
    if record is not None and record.kind != pb.KIND_RUN:
        raise NotThere(f"Record {short(record.id)} is not a run.")
    counts: Sequence[ds.RecordCount] = ()
    if record is not None:
        of = record.id
        counted = await gathered.part(
            lambda reader: reader.call(reader.clients.dataset.Count, ds.CountRequest(collection=of))
        )
        counts = counted.counts if counted else ()
    return page(
        request,
        "run_records",
        gathered,
        section="runs",
        title=(record.run.name if record else "") or f"run {short(name)}",
        status=200 if record else 503,
        record=record,
        kinds=kind_counts(record.id, counts) if record else (),
        facts=recipe.facts(record.run) if record else (),
    )


def _without_report(status: api.RunStatus, counts: Sequence[ds.RecordCount]) -> api.GetReportResponse:
    """Return what status and counts say, for a report that cannot be read."""
    report = api.GetReportResponse(run=status, rounds=[api.RoundReport(round=each) for each in status.series.rounds])
    for stage in status.stages:
        report.stages.add(stage=stage.stage, items=stage.done, kept=stage.kept, reasons=stage.reasons)
    for one in counts:
        if one.kind == pb.KIND_VERDICT:
            report.verdicts[one.label] += one.count
        elif one.kind == pb.KIND_EXAMPLE:
            report.rows += one.count
    return report


def _reached(report: api.GetReportResponse) -> list[tuple[target.Reached, Markup]]:
    """Return what is reached of each part of the target, with a bar."""
    parts = target.reached(report.run, report.target)
    return [(part, charts.bar(("kept", part.share), css="bar live")) for part in parts]


def _per_row(report: api.GetReportResponse) -> tuple[tuple[str, str], ...]:
    """Return what a row costs, over all stages."""
    if not report.rows:
        return ()
    prompt, cached, unknown = sections.cached_of(report.stages)
    computed = "unknown" if unknown else f"{(prompt - cached) / report.rows:,.0f}"
    written = sum(stage.generated_tokens for stage in report.stages)
    seconds = sum(stage.wall_seconds for stage in report.stages)
    return (
        ("prompt tokens computed per row", computed),
        ("tokens generated per row", f"{written / report.rows:,.0f}"),
        ("stage seconds per row", f"{seconds / report.rows:,.2f}"),
    )


def kind_counts(collection: str, counts: Sequence[ds.RecordCount]) -> list[KindCount]:
    """Return the kinds of records in a collection."""
    numbers: dict[int, int] = {}
    for one in counts:
        numbers[one.kind] = numbers.get(one.kind, 0) + one.count
    known = [kind for kind in pb.Kind.values() if numbers.get(kind)]
    return [KindCount(kind, numbers[kind], records_url(collection, kind)) for kind in known]


def reason_urls(collection: str, counts: Sequence[ds.RecordCount]) -> dict[str, str]:
    """Return where the records with each reason are listed."""
    found = {}
    for one in counts:
        if one.label and one.kind in pb.Kind.values():
            outcome = "dropped" if one.outcome == pb.Decision.OUTCOME_DROPPED else ""
            found[one.label] = records_url(collection, one.kind, label=one.label, outcome=outcome)
    return found
