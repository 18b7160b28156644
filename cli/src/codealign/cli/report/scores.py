"""Comparison of base and tuned models: which evaluations belong together, and what a difference means."""

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
"""With fewer differing problems, no outcome reaches p < 0.05: 2 · 0.5⁵ is 0.06."""
FEW_PROBLEMS = 50


@dataclass(frozen=True)
class Pair:
    """Two models on one benchmark."""

    comparison: api.Comparison
    base: api.Evaluation
    tuned: api.Evaluation

    @property
    def title(self) -> str:
        """The benchmark's title, with the number of samples if there are several."""
        title = benchmark_title(self.comparison.benchmark)
        return f"{title}, {self.tuned.samples:,} samples" if self.tuned.samples > 1 else title

    @property
    def separating(self) -> int:
        """Number of problems on which one model is better."""
        return self.comparison.base_better + self.comparison.tuned_better

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference would be unlikely between equally good models."""
        return self.comparison.problems > 0 and self.comparison.p_value < SIGNIFICANT


@dataclass(frozen=True)
class Match:
    """A tuned model and its base, over their benchmarks."""

    title: str
    pairs: tuple[Pair, ...]


def matches(report: api.GetReportResponse) -> list[Match]:
    """Return the comparisons by tuned model, in the order of the checkpoints, with benchmarks in a fixed order."""
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
    """Return the sort key: benchmarks in a fixed order, then evaluations with more samples first."""
    return benchmark_rank(pair.comparison.benchmark), -pair.tuned.samples, pair.tuned.id


def pass_at(evaluation: api.Evaluation, k: int = 1) -> float | None:
    """Return pass@k, or None if it was not estimated."""
    value = evaluation.pass_at_k.get(k)
    return value if value is not None and math.isfinite(value) else None


def interval_of(evaluation: api.Evaluation, k: int = 1) -> api.Interval | None:
    """Return the interval of pass@k, or None if there is none."""
    return evaluation.intervals.get(k)


def levels(pair: Pair) -> str:
    """Return pass@1 before and after: "28.0% → 31.1%"."""
    base, tuned = pass_at(pair.base), pass_at(pair.tuned)
    return "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}".join(
        "not known" if value is None else percent(value) for value in (base, tuned)
    )


def brief_meaning(pair: Pair) -> str:
    """Return a clause for the headline: "a difference that could be noise (p = 0.42)"."""
    comparison = pair.comparison
    if not comparison.problems:
        return "without common problems"
    if not pair.separating:
        return "no difference on any problem"
    if not pair.beyond_noise:
        return f"a difference that could be noise ({chance(comparison.p_value)})"
    noun = "gain" if comparison.difference > 0 else "loss"
    return f"a {noun} beyond noise ({chance(comparison.p_value)})"


def meaning(pair: Pair) -> str:
    """Explain whether the difference is more than noise."""
    comparison = pair.comparison
    if not comparison.problems:
        return f"{pair.title}: the two evaluations have no problems in common, so there is nothing to compare."
    of = f"On {count(comparison.problems, 'problem')} of {pair.title}"
    if not pair.separating:
        return f"{of}, both models had the same results: no difference."
    than = (
        "equally good" if points(comparison.difference) == "0.0" else "better" if comparison.difference > 0 else "worse"
    )
    size = "" if than == "equally good" else f" by {points(abs(comparison.difference)).lstrip('+')} points"
    interval = points_interval(comparison.interval if comparison.HasField("interval") else None)
    fact = f"{of}, the tuned model is {than}{size}" + (f" (95% interval {interval})" if interval else "")
    if pair.beyond_noise:
        odds = "less than 0.1%" if comparison.p_value < 0.001 else f"{percent(comparison.p_value)}"
        return (
            f"{fact}. This is more than noise: equally good models would differ this much with a probability of {odds}."
        )
    if pair.separating < TOO_FEW_TO_TELL:
        only = f"Only {count(pair.separating, 'problem')} {'tells' if pair.separating == 1 else 'tell'} the two apart"
        return f"{fact}. {only}: too few to tell a difference from noise ({chance(comparison.p_value)})."
    return (
        f"{fact}. This could be noise: equally good models would differ this much with a probability of "
        f"{percent(comparison.p_value)}."
    )


def false_alarms(pairs: Sequence[Pair]) -> str:
    """Return the combined false positive rate of several tests, or "" for one."""
    if len(pairs) < 2:
        return ""
    risk = 1 - (1 - SIGNIFICANT) ** len(pairs)
    return (
        f"With {len(pairs)} tests at a {SIGNIFICANT:.0%} level, the probability of at least one false positive is up "
        f"to {risk:.0%} (assuming independence)."
    )


def ordered(evaluations: Iterable[api.Evaluation], base_revision: str) -> list[api.Evaluation]:
    """Return evaluations by benchmark, the base model's first."""
    return sorted(
        evaluations,
        key=lambda one: (benchmark_rank(one.benchmark), one.model_revision != base_revision, one.model, one.id),
    )
