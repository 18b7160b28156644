"""Two runs or versions side by side: settings, stages, models, and on request their rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.diffing import Change, Diff, Summary
from codealign.cli.family import is_record_id
from codealign.cli.missing_rows import Side
from codealign.cli.progress import run_state
from codealign.cli.report import recipe, sections
from codealign.cli.report.scores import interval_of, ordered, pass_at
from codealign.cli.report.wording import benchmark_title, percent, percent_interval, share, short
from codealign.cli.terminal import duration
from codealign.console.reading import Gathering, NotThere, Reader
from codealign.console.rendering import gather, page

MOST_ROWS = 2000
"""Rows of both sides together that a page compares: more are for `codealign data diff`."""
MOST_CHANGES = 200
ROWS_SECONDS = 10.0


@dataclass(frozen=True)
class Row:
    """A line of the comparison."""

    name: str
    before: str
    after: str

    @property
    def pair(self) -> tuple[str, str]:
        """Name and value, where both sides have the same."""
        return self.name, self.before

    @property
    def differs(self) -> bool:
        """Whether the sides differ."""
        return self.before != self.after


@dataclass(frozen=True)
class Group:
    """Lines under one heading."""

    title: str
    rows: tuple[Row, ...]
    same: tuple[Row, ...] = ()
    """Lines that are equal on both sides and of less interest."""


@dataclass(frozen=True)
class Compared:
    """One side: a run, and the version if it was named."""

    given: str
    title: str
    report: api.GetReportResponse
    version: str


async def compare(request: Request) -> Response:
    """Compare two runs or versions."""
    gathered = gather(request)
    given = [request.query_params.get(name, "").strip() for name in ("a", "b")]
    listed, versions = await asyncio.gather(
        gathered.part(
            lambda reader: reader.call(reader.clients.coordinator.ListRuns, api.ListRunsRequest(summary_only=True))
        ),
        gathered.part(lambda reader: reader.call(reader.clients.dataset.ListVersions, ds.ListVersionsRequest())),
    )
    names = [(one.id, one.config.name or short(one.id)) for one in (listed.runs[:200] if listed else ())]
    named = {one.name: one for one in (versions.versions if versions else ())}
    sides: list[Compared] = []
    if all(given):
        for found in await asyncio.gather(*(_side(gathered, one, named) for one in given)):
            sides += [found] if found else []
    ready = len(sides) == 2
    rows = sum(side.report.rows for side in sides)
    wanted = ready and bool(request.query_params.get("rows"))
    changes, summary, cut = await _rows(gathered, sides) if wanted and rows <= MOST_ROWS else ((), None, False)
    return page(
        request,
        "compare",
        gathered,
        section="compare",
        title="Compare",
        given=given,
        runs=names,
        versions=list(named),
        sides=sides,
        groups=_groups(sides[0].report, sides[1].report) if ready else (),
        ready=ready,
        rows=rows,
        most=MOST_ROWS,
        wanted=wanted,
        changes=changes,
        summary=summary,
        cut=cut,
    )


async def _side(gathered: Gathering, given: str, versions: Mapping[str, ds.Version]) -> Compared | None:
    version = versions.get(given)
    run = version.collection if version is not None else given
    if version is not None and not is_record_id(run):
        raise NotThere(f"Version {given} was not published by a run, so there are no stages to compare.")
    report = await gathered.part(
        lambda reader: reader.call(reader.clients.coordinator.GetReport, api.GetReportRequest(run=run)), named=True
    )
    if report is None:
        return None
    name = report.run.config.name or f"run {short(report.run.id)}"
    return Compared(given, f"{given} ({name})" if version is not None else name, report, given if version else "")


def _groups(before: api.GetReportResponse, after: api.GetReportResponse) -> list[Group]:
    groups = [
        ("Outcome", _outcome(before), _outcome(after)),
        ("Kept by stage", _kept(before), _kept(after)),
        ("Dropped for", _reasons(before), _reasons(after)),
        ("Verdicts", _verdicts(before), _verdicts(after)),
        ("Cost", _cost(before), _cost(after)),
        ("Models", _scores(before), _scores(after)),
        ("Settings", _settings(before.run.config), _settings(after.run.config)),
    ]
    found = []
    for title, one, other in groups:
        lines = [Row(name, one.get(name, ""), other.get(name, "")) for name in dict.fromkeys((*one, *other))]
        lines = [line for line in lines if line.before or line.after]
        if title == "Settings":
            differing = tuple(line for line in lines if line.differs)
            found.append(Group(title, differing, tuple(line for line in lines if not line.differs)))
        elif lines:
            found.append(Group(title, tuple(lines)))
    return found


def _outcome(report: api.GetReportResponse) -> dict[str, str]:
    return {"state": run_state(report.run), "rows": f"{report.rows:,}", "version": report.run.version or "none"}


def _kept(report: api.GetReportResponse) -> dict[str, str]:
    return {
        stage.stage: f"{stage.kept:,} of {stage.items:,}"
        + (f" ({share(stage.kept, stage.items)})" if stage.items else "")
        for stage in report.stages
    }


def _reasons(report: api.GetReportResponse) -> dict[str, str]:
    found = {}
    for stage in report.stages:
        for name in sorted(stage.reasons, key=lambda one: -stage.reasons[one]):
            if name not in report.verdicts:
                found[f"{stage.stage}: {name}"] = f"{stage.reasons[name]:,} ({share(stage.reasons[name], stage.items)})"
    return found


def _verdicts(report: api.GetReportResponse) -> dict[str, str]:
    whole = sum(report.verdicts.values())
    ordered_names = sorted(report.verdicts, key=lambda one: -report.verdicts[one])
    return {name: f"{report.verdicts[name]:,} ({share(report.verdicts[name], whole)})" for name in ordered_names}


def _cost(report: api.GetReportResponse) -> dict[str, str]:
    prompt, cached, unknown = sections.cached_of(report.stages)
    written = sum(stage.generated_tokens for stage in report.stages)
    found = {
        "prompt tokens": f"{prompt:,}",
        "of them cached": sections.cached_words(prompt, cached, unknown),
        "generated tokens": f"{written:,}",
    }
    if report.rows:
        found["generated tokens per row"] = f"{written / report.rows:,.0f}"
    found.update(
        {f"{stage.stage}: time": duration(stage.wall_seconds) for stage in report.stages if stage.wall_seconds}
    )
    return found


def _scores(report: api.GetReportResponse) -> dict[str, str]:
    found = {}
    base = report.run.config.model.revision
    for one in ordered(report.evaluations, base):
        value, interval = pass_at(one), interval_of(one)
        if value is not None:
            which = "base" if one.model_revision == base else "tuned"
            name = f"{benchmark_title(one.benchmark)}, {one.samples} samples, {which}, {one.prompt_style}"
            found[name] = percent(value) + (f" ({percent_interval(interval)})" if interval else "")
    return found


def _settings(run: pb.Run) -> dict[str, str]:
    found = {name: f"{choice.model} {short(choice.revision)}".strip() for name, choice in recipe.models(run)}
    found.update(recipe.facts(run))
    for setting in recipe.generation(run):
        for stage, value in zip(run.stages, setting.values, strict=True):
            found[f"{stage.stage}: {setting.name}"] = value
    return found


async def _rows(gathered: Gathering, sides: Sequence[Compared]) -> tuple[Sequence[Change], Summary | None, bool]:
    """Return the first changes, the summary as far as it was made, and whether it was cut."""
    changes: list[Change] = []

    async def read(reader: Reader) -> tuple[Summary, bool]:
        before, after = (Side(side.given, side.report.run.id, side.title) for side in sides)
        found = Diff(reader, before, after)
        try:
            async with asyncio.timeout(ROWS_SECONDS), contextlib.aclosing(found.changes()) as stream:
                async for change in stream:
                    changes.append(change)
                    if len(changes) == MOST_CHANGES:
                        return found.summary, True
        except TimeoutError:
            return found.summary, True
        return found.summary, False

    done = await gathered.part(read)
    return changes, done[0] if done else None, done[1] if done else False
