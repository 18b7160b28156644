"""The page's comparison of base and tuned models: charts, table lines, and the evaluations behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.cli.report import charts
from codealign.cli.report.scores import Match, Pair, false_alarms, interval_of, meaning, pass_at
from codealign.cli.report.sections import sample_verdicts
from codealign.cli.report.wording import (
    Words,
    benchmark_title,
    chance,
    percent,
    percent_interval,
    points,
    points_interval,
    short,
)


@dataclass(frozen=True)
class Line:
    """A benchmark's line in the table."""

    title: str
    problems: int
    base: str
    base_interval: str
    tuned: str
    tuned_interval: str
    difference: str
    difference_interval: str
    base_better: int
    tuned_better: int
    chance: str
    test: str
    meaning: str
    beyond_noise: bool
    only_base: str
    only_tuned: str


@dataclass(frozen=True)
class MatchView:
    """Comparison of a tuned model with its base."""

    title: str
    levels: Markup
    differences: Markup
    lines: tuple[Line, ...]
    warning: str


@dataclass(frozen=True)
class EvaluationLine:
    """All facts about one evaluation."""

    benchmark: str
    model: str
    asked: str
    problems: str
    figures: tuple[str, ...]
    verdicts: str


def match_view(index: int, match: Match) -> MatchView:
    """Return the charts and table lines of a comparison."""
    level_groups = [charts.Group(pair.title, _levels(pair)) for pair in match.pairs]
    level_groups = [group for group in level_groups if group.marks]
    differences = [charts.Group(pair.title, (_difference(pair),)) for pair in match.pairs if pair.comparison.problems]
    return MatchView(
        title=match.title,
        levels=charts.forest(
            level_groups,
            unit="pass@1 (%)",
            signed=False,
            title="pass@1 of base and tuned model",
            name=f"levels-{index}",
        )
        if level_groups
        else Markup(""),
        differences=charts.forest(
            differences,
            unit="tuned minus base (points)",
            signed=True,
            title="Difference in pass@1, tuned minus base",
            name=f"differences-{index}",
        )
        if differences
        else Markup(""),
        lines=tuple(_line(pair) for pair in match.pairs),
        warning=false_alarms(match.pairs),
    )


def _levels(pair: Pair) -> tuple[charts.Mark, ...]:
    marks = []
    for kind, evaluation in (("base", pair.base), ("tuned", pair.tuned)):
        value = pass_at(evaluation)
        if value is not None:
            interval = interval_of(evaluation)
            low, high = (interval.low, interval.high) if interval else (value, value)
            marks.append(charts.Mark(kind, 100 * value, 100 * low, 100 * high, percent(value)))
    return tuple(marks)


def _difference(pair: Pair) -> charts.Mark:
    one = pair.comparison
    low, high = (one.interval.low, one.interval.high) if one.HasField("interval") else (one.difference, one.difference)
    return charts.Mark("difference", 100 * one.difference, 100 * low, 100 * high, points(one.difference))


def _line(pair: Pair) -> Line:
    one = pair.comparison
    base, tuned = pass_at(pair.base), pass_at(pair.tuned)
    only_base, only_tuned = _separating(pair)
    return Line(
        title=pair.title,
        problems=one.problems,
        base="not known" if base is None else percent(base),
        base_interval=percent_interval(interval_of(pair.base)),
        tuned="not known" if tuned is None else percent(tuned),
        tuned_interval=percent_interval(interval_of(pair.tuned)),
        difference=points(one.difference),
        difference_interval=points_interval(one.interval if one.HasField("interval") else None),
        base_better=one.base_better,
        tuned_better=one.tuned_better,
        chance=chance(one.p_value) if one.problems else "",
        test=one.test,
        meaning=meaning(pair),
        beyond_noise=pair.beyond_noise,
        only_base=", ".join(only_base),
        only_tuned=", ".join(only_tuned),
    )


def _separating(pair: Pair) -> tuple[list[str], list[str]]:
    """Return the problems on which the base model is better, and those on which the tuned model is better."""
    base = {score.problem_id: score.passed / score.samples for score in pair.base.scores if score.samples}
    only_base, only_tuned = [], []
    for score in pair.tuned.scores:
        if not score.samples or score.problem_id not in base:
            continue
        share = score.passed / score.samples
        if share < base[score.problem_id]:
            only_base.append(score.problem_id)
        elif share > base[score.problem_id]:
            only_tuned.append(score.problem_id)
    return only_base, only_tuned


def evaluation_lines(evaluations: Sequence[api.Evaluation], words: Words) -> list[EvaluationLine]:
    """Return all facts about each evaluation."""
    return [
        EvaluationLine(
            benchmark=benchmark_title(one.benchmark),
            model=(one.model or "model") + (f" at {short(one.model_revision)}" if one.model_revision else ""),
            asked=_asked(one),
            problems=f"{one.problems_done:,} of {one.problems_total:,}",
            figures=tuple(_figure(one, k) for k in sorted(one.pass_at_k)),
            verdicts=sample_verdicts(one, words) + (f", undecided {one.undecided:,}" if one.undecided else ""),
        )
        for one in evaluations
    ]


def _asked(one: api.Evaluation) -> str:
    how = "greedy" if not one.temperature else f"temperature {one.temperature:g}"
    style = {"base": "plain completion", "tuned": "as an instruction"}.get(one.prompt_style, one.prompt_style)
    samples = f"{one.samples:,} {'sample' if one.samples == 1 else 'samples'} per problem"
    return ", ".join(part for part in (style, samples, how, f"at most {one.max_tokens:,} new tokens") if part)


def _figure(one: api.Evaluation, k: int) -> str:
    interval = interval_of(one, k)
    text = f"pass@{k} {percent(one.pass_at_k[k])}"
    return f"{text} ({percent_interval(interval)})" if interval else text
