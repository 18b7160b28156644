"""The rounds of a series, one line each, as plain values for the terminal and the page."""

from __future__ import annotations

from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.enums import value_name
from codealign.cli.report.scores import SIGNIFICANT, interval_of, pass_at
from codealign.cli.report.wording import (
    benchmark_rank,
    benchmark_title,
    chance,
    percent,
    percent_interval,
    points,
    short,
)

NOTE = (
    "distinct-2: distinct pairs of adjacent words divided by all such pairs; it falls as rows are added. Similarity: "
    "mean Jaccard similarity of word 5-grams over all pairs of rows (tasks, answers). Scores: pass@1 of the tuned "
    "model with its 95% interval, and the difference in points to the previous round's model (in round 1: the base "
    "model), paired by problem."
)


@dataclass(frozen=True)
class Score:
    """A tuned model on one benchmark."""

    benchmark: str
    value: str
    interval: str
    change: str
    """Difference to the previous round's model: "+3.1 (p = 0.42)". Empty: not compared."""
    is_worse: bool
    """Whether it is worse beyond noise."""


@dataclass(frozen=True)
class RoundLine:
    """A round; texts are empty as long as they are unknown."""

    number: int
    run: str
    version: str
    rows: str
    pass_rate: str
    concepts: str
    instructions: str
    """distinct-2 of the rows' instructions."""
    responses: str
    similarity: str
    """Of instructions, then of responses."""
    scores: tuple[Score, ...]

    @property
    def score_text(self) -> str:
        """All scores, one per line."""
        return "\n".join(
            " ".join(
                part
                for part in (one.benchmark, one.value, f"({one.interval})" if one.interval else "", one.change)
                if part
            )
            for one in self.scores
        )


def round_lines(report: api.GetReportResponse) -> list[RoundLine]:
    """Return the rounds of the run's series, in order."""
    return [_line(one) for one in report.rounds]


def _line(report: api.RoundReport) -> RoundLine:
    made = report.round
    data = made.data
    known = made.HasField("data")
    return RoundLine(
        number=made.number,
        run=short(made.run),
        version=data.version,
        rows=f"{data.rows:,}" if known else "",
        pass_rate=percent(data.pass_rate) if data.HasField("pass_rate") else "",
        concepts=f"{data.concepts:,}" if known else "",
        instructions=f"{data.instructions.distinct_2:.3f}" if known else "",
        responses=f"{data.responses.distinct_2:.3f}" if known else "",
        similarity=f"{data.instructions.similarity:.3f}, {data.responses.similarity:.3f}" if known else "",
        scores=tuple(_scores(report)),
    )


def _scores(report: api.RoundReport) -> list[Score]:
    compared = {one.tuned: one for one in report.comparisons}
    found = []
    for one in sorted(report.evaluations, key=lambda one: (benchmark_rank(one.benchmark), -one.samples, one.id)):
        value, pair = pass_at(one), compared.get(one.id)
        title = benchmark_title(one.benchmark) + (f", {one.samples:,} samples" if one.samples > 1 else "")
        found.append(
            Score(
                benchmark=title,
                value="none yet" if value is None else percent(value),
                interval=percent_interval(interval_of(one)),
                change=f"{points(pair.difference)} ({chance(pair.p_value)})" if pair else "",
                is_worse=pair is not None and pair.difference < 0 and pair.p_value < SIGNIFICANT,
            )
        )
    return found


def series_line(series: api.SeriesStatus) -> str:
    """Return the state of a series in one line."""
    config = series.config
    state = value_name(pb.RunState.DESCRIPTOR, series.state).lower()
    text = f"{len(series.rounds)} of {config.number} rounds, {state}"
    text += f"; the tuned model generates {config.generates}, training starts from the {config.train_from} model"
    return f"{text}: {series.message}" if series.message else text
