"""The series of rounds that a run belongs to: where the run stands in it, each round, and the stop rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.report.rounds import NOTE, RoundLine, round_lines, series_line

_CONTINUED = "passed"
"""What the stop rules say about a round that was followed by another, or was the last of a complete series."""


@dataclass(frozen=True)
class RoundView:
    """A round."""

    line: RoundLine
    run: str
    """Id of its run."""
    checkpoint: str
    """Id of the tuned model's record, or ""."""
    verdict: str
    """What the stop rules say about it, or "" as long as they have not been applied to all of it."""


@dataclass(frozen=True)
class SeriesView:
    """A series, as seen from one of its rounds."""

    state: pb.RunState.ValueType
    place: str
    """The run's place in the series: "round 2 of 3"."""
    before: str
    after: str
    """Ids of the runs of the rounds next to it, or ""."""
    told: str
    """The series in one line, with the reason for its state."""
    rules: tuple[str, ...]
    """What ends it early."""
    rounds: tuple[RoundView, ...]
    note: str
    """What the columns mean."""


def view(report: api.GetReportResponse) -> SeriesView | None:
    """Return the series of the report's run, or None if it belongs to none."""
    run = report.run
    if not run.HasField("series"):
        return None
    series, runs = run.series, [each.round.run for each in report.rounds]
    at = runs.index(run.id) if run.id in runs else -1
    return SeriesView(
        state=series.state,
        place=f"round {report.rounds[at].round.number} of {series.config.number}" if at >= 0 else "a series of rounds",
        before=runs[at - 1] if at > 0 else "",
        after=runs[at + 1] if 0 <= at < len(runs) - 1 else "",
        told=series_line(series),
        rules=tuple(_rules(series.config.stop)),
        rounds=tuple(
            RoundView(
                line=line,
                run=each.round.run,
                checkpoint=each.round.checkpoint,
                verdict=_CONTINUED if number < len(runs) or series.state == pb.RUN_STATE_SUCCEEDED else "",
            )
            for number, (line, each) in enumerate(zip(round_lines(report), report.rounds, strict=True), start=1)
        ),
        note=NOTE,
    )


def _rules(stop: pb.StopRules) -> Iterator[str]:
    """Yield the rules that are in force."""
    yield "no row is kept"
    if stop.pass_rate:
        yield f"the share of responses that pass is below {stop.pass_rate:g} times round 1's"
    if stop.diversity:
        yield f"distinct-2 of tasks or answers is below {stop.diversity:g} times round 1's"
    if stop.worse_p:
        yield f"the tuned model is worse than the previous one on a benchmark, with p below {stop.worse_p:g}"
