"""Statistics of an experiment: pure, deterministic functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codealign.coordinator.evaluation.statistics import Interval, Score, compare, mean

LEVEL = 0.05
"""Significance level of claims, and one minus the level of confidence intervals."""
T_TEST = "paired t over seeds"
OVER_PROBLEMS = "paired bootstrap over problems"
_EPSILON = 1e-9

Scores = Mapping[str, Score]
"""Scores of a model by problem."""


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, from the sample variance; None for fewer than two values."""
    count = len(values)
    if count < 2:
        return None
    average = mean(values)
    return math.sqrt(math.fsum((each - average) ** 2 for each in values) / (count - 1) / count)


def t_p_value(t: float, degrees: int) -> float:
    """Return the two-sided p-value of Student's t.

    One minus Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4: finite series for
    whole degrees of freedom. The test itself: Student 1908, "The Probable Error of a Mean", Biometrika 6.

    Args:
        t: Value of the statistic.
        degrees: Degrees of freedom, at least 1.
    """
    angle = math.atan(abs(t) / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(1 + odd, degrees, 2):
        total += term
        term *= cosine**2 * step / (step + 1)
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1.0 - inside)


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Return the t whose two-sided p-value is `level`, by bisection."""
    low, high = 0.0, 1.0
    while t_p_value(high, degrees) > level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_p_value(middle, degrees) > level else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Difference:
    """Difference of two arms within each seed."""

    by_seed: Sequence[float]
    mean: float
    interval: Interval
    """95% confidence interval."""
    p_value: float
    """Two-sided."""
    test: str


def difference(better: Sequence[Scores], than: Sequence[Scores]) -> Difference:
    """Compare two arms, paired by seed. Every element has the same problems; element i of both is of the same seed.

    With two seeds or more: a paired t-test and its interval. With one seed, or if all seeds differ by the same amount,
    the t-test is undefined; problems are compared instead, so the result holds for these seeds only.
    """
    by_seed = [rate(one) - rate(two) for one, two in zip(better, than, strict=True)]
    average, error = mean(by_seed), standard_error(by_seed)
    if error is None or error < _EPSILON:
        problems = sorted(better[0])
        paired = compare(_over_seeds(than, problems), _over_seeds(better, problems))
        return Difference(by_seed, average, paired.interval, paired.p_value, f"{OVER_PROBLEMS}, {paired.test}")
    degrees = len(by_seed) - 1
    half = t_quantile(degrees) * error
    return Difference(by_seed, average, (average - half, average + half), t_p_value(average / error, degrees), T_TEST)


def rate(scores: Scores) -> float:
    """Return pass@1 over all problems."""
    return mean([each.rate for each in scores.values()])


def _over_seeds(found: Sequence[Scores], problems: Sequence[str]) -> list[Score]:
    """Return the scores of each problem, added up over the seeds."""
    return [
        Score(sum(scores[each].samples for scores in found), sum(scores[each].passed for scores in found))
        for each in problems
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for several tests, in the same order.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted
