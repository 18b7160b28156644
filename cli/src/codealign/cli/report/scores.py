"""Base against tuned: what belongs together, and what a difference means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.cli.report.wording import (
    benchmark_rank,
    benchmark_title,
    chance,
    percent,
    points,
    points_interval,
    short,
)
from codealign.cli.terminal import count

SIGNIFICANT = 0.05
TOO_FEW_TO_TELL = 6
"""With fewer problems on which the two differ, no outcome reaches p < 0.05: 2 · 0.5⁵ is 0.06."""
FEW_PROBLEMS = 50


@dataclass(frozen=True)
class Pair:
    """Two models on one benchmark."""

    comparison: api.Comparison
    base: api.Evaluation
    tuned: api.Evaluation

    @property
    def title(self) -> str:
        """The benchmark's, and how often it was sampled where that was more than once."""
        title = benchmark_title(self.comparison.benchmark)
        return f"{title}, {self.tuned.samples:,} samples" if self.tuned.samples > 1 else title

    @property
    def separating(self) -> int:
        """Problems on which one of them is better."""
        return self.comparison.base_better + self.comparison.tuned_better

    @property
    def beyond_noise(self) -> bool:
        """The difference is unlikely between equally good models."""
        return self.comparison.problems > 0 and self.comparison.p_value < SIGNIFICANT


@dataclass(frozen=True)
class Match:
    """One tuned model against its base, over their benchmarks."""

    title: str
    pairs: tuple[Pair, ...]


def matches(report: api.GetReportResponse) -> list[Match]:
    """The comparisons by tuned model, in the order of the checkpoints; benchmarks in a fixed order."""
    known = {evaluation.id: evaluation for evaluation in report.evaluations}
    pairs: dict[str, list[Pair]] = {}
    for comparison in report.comparisons:
        base = known.get(comparison.base, api.Evaluation(id=comparison.base))
        tuned = known.get(comparison.tuned, api.Evaluation(id=comparison.tuned))
        pairs.setdefault(tuned.model_revision or tuned.id, []).append(Pair(comparison, base, tuned))
    order = [record.checkpoint.revision for record in report.checkpoints]
    found = []
    for revision in sorted(pairs, key=lambda key: order.index(key) if key in order else len(order)):
        own = sorted(pairs[revision], key=_order)
        name = own[0].tuned.model or "tuned model"
        found.append(Match(f"{name} at {short(revision)}", tuple(own)))
    return found


def _order(pair: Pair) -> tuple[object, ...]:
    """Benchmarks in a fixed order; of one the figure first that more samples make finer."""
    return benchmark_rank(pair.comparison.benchmark), -pair.tuned.samples, pair.tuned.id


def pass_at(evaluation: api.Evaluation, k: int = 1) -> float | None:
    """pass@k where it was estimated."""
    value = evaluation.pass_at_k.get(k)
    return value if value is not None and math.isfinite(value) else None


def interval_of(evaluation: api.Evaluation, k: int = 1) -> api.Interval | None:
    """The interval of pass@k where there is one."""
    return evaluation.intervals.get(k)


def levels(pair: Pair) -> str:
    """pass@1 before and after: "28.0% → 31.1%"."""
    base, tuned = pass_at(pair.base), pass_at(pair.tuned)
    return "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}".join(
        "not known" if value is None else percent(value) for value in (base, tuned)
    )


def brief_meaning(pair: Pair) -> str:
    """A clause for a headline: "a difference that could be noise (p = 0.42)"."""
    comparison = pair.comparison
    if not comparison.problems:
        return "with no problem in common"
    if not pair.separating:
        return "no difference on any problem"
    if not pair.beyond_noise:
        return f"a difference that could be noise ({chance(comparison.p_value)})"
    noun = "gain" if comparison.difference > 0 else "loss"
    return f"a {noun} that noise hardly explains ({chance(comparison.p_value)})"


def meaning(pair: Pair) -> str:
    """Whether the difference is more than noise, in sentences for a person."""
    comparison = pair.comparison
    if not comparison.problems:
        return f"{pair.title}: the two have no problem in common, so there is nothing to compare."
    of = f"On {count(comparison.problems, 'problem')} of {pair.title}"
    if not pair.separating:
        return f"{of} both models did exactly the same: no difference."
    than = "the same" if points(comparison.difference) == "0.0" else "better" if comparison.difference > 0 else "worse"
    size = "" if than == "the same" else f" by {points(abs(comparison.difference)).lstrip('+')} points"
    interval = points_interval(comparison.interval if comparison.HasField("interval") else None)
    fact = f"{of} the tuned model is {than}{size}" + (f" (95% interval {interval})" if interval else "")
    if pair.beyond_noise:
        odds = "less than one in a thousand" if comparison.p_value < 0.001 else f"{percent(comparison.p_value)}"
        return f"{fact}. This is more than noise: between equally good models the chance of it would be {odds}."
    if pair.separating < TOO_FEW_TO_TELL:
        only = f"Only {count(pair.separating, 'problem')} {'tells' if pair.separating == 1 else 'tell'} the two apart"
        return f"{fact}. {only}: too few to know whether it is more than noise ({chance(comparison.p_value)})."
    return (
        f"{fact}. This could be noise: between equally good models a difference as large would have a chance of "
        f"{percent(comparison.p_value)}."
    )


def false_alarms(pairs: Sequence[Pair]) -> str:
    """What several tests at once mean for each; empty for one."""
    if len(pairs) < 2:
        return ""
    risk = 1 - (1 - SIGNIFICANT) ** len(pairs)
    return (
        f"With {len(pairs)} tests at {SIGNIFICANT:.0%} each, the chance that at least one calls noise a difference is "
        f"up to {risk:.0%} (were they independent)."
    )


def ordered(evaluations: Iterable[api.Evaluation], base_revision: str) -> list[api.Evaluation]:
    """Evaluations by benchmark, of each the base model's first."""
    return sorted(
        evaluations,
        key=lambda one: (benchmark_rank(one.benchmark), one.model_revision != base_revision, one.model, one.id),
    )
