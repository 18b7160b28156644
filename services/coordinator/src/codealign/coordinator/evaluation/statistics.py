"""Statistics of an evaluation: pure, deterministic functions.

Random numbers come from a generator with a fixed seed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

Interval = tuple[float, float]

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the standard normal distribution."""
RESAMPLES = 2000
PERMUTATIONS = 10_000
EXACT_PROBLEMS = 12
"""Up to this number of differing problems, the permutation test enumerates every assignment of signs."""
MCNEMAR, SIGN_FLIP = "exact McNemar", "sign-flip permutation"
_SEED = 20241031
_KS = (1, 5, 10, 100)
_EPSILON = 1e-9


def ks(samples: int) -> list[int]:
    """Return the values of k for pass@k: those of 1, 5, 10 and 100 that are at most `samples`, and `samples` itself."""
    return sorted({k for k in (*_KS, samples) if 1 <= k <= samples})


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Estimate, without bias, the probability that at least one of k samples passes.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.

    Args:
        samples: Number of samples n, at least k.
        passed: Number of samples c that passed.
        k: Number of samples drawn.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} is undefined for {passed} passed of {samples} samples")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def mean(values: Sequence[float]) -> float:
    """Return the mean, or 0 for an empty sequence."""
    return math.fsum(values) / len(values) if values else 0.0


def wilson(passed: int, total: int) -> Interval:
    """Return Wilson's 95% interval of a proportion.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", J. Am. Stat. Assoc. 22.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = passed / total, Z95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = Z95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: Sequence[float]) -> Interval:
    """Return the 95% percentile bootstrap interval of the mean, resampling problems with replacement.

    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife", Ann. Statist. 7.
    """
    if not values:
        return 0.0, 0.0
    draw = random.Random(_SEED)  # noqa: S311 - statistics, no secret
    count = len(values)
    means = sorted(math.fsum(draw.choices(values, k=count)) / count for _ in range(RESAMPLES))
    return _quantile(means, 0.025), _quantile(means, 0.975)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile, interpolated linearly as NumPy does by default."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def mcnemar(first_better: int, second_better: int) -> float:
    """Return the p-value of the exact two-sided McNemar test: a binomial test of the discordant pairs.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12.
    """
    differing, fewer = first_better + second_better, min(first_better, second_better)
    tail = sum(math.comb(differing, count) for count in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**differing))


def sign_flip(differences: Sequence[float]) -> float:
    """Return the p-value of the two-sided sign-flip permutation test of paired differences.

    Exact if few problems differ; else estimated from `PERMUTATIONS` random assignments of signs plus the observed one
    (Phipson and Smyth 2010, "Permutation P-values Should Never Be Zero").
    """
    moved = [abs(each) for each in differences if abs(each) > _EPSILON]
    observed = abs(math.fsum(differences)) - _EPSILON
    if len(moved) <= EXACT_PROBLEMS:
        sums = [abs(math.fsum(signed)) for signed in itertools.product(*((each, -each) for each in moved))]
        return sum(each >= observed for each in sums) / len(sums)
    draw = random.Random(_SEED)  # noqa: S311 - statistics, no secret
    as_large = 0
    for _ in range(PERMUTATIONS):
        bits = draw.getrandbits(len(moved))
        total = sum(each if bits >> place & 1 else -each for place, each in enumerate(moved))
        as_large += abs(total) >= observed
    return (as_large + 1) / (PERMUTATIONS + 1)


@dataclass(frozen=True)
class Score:
    """Numbers of samples and of passed samples of a problem."""

    samples: int
    passed: int

    @property
    def rate(self) -> float:
        """pass@1 of this problem."""
        return self.passed / self.samples


@dataclass(frozen=True)
class Paired:
    """Paired comparison of two models on the same problems."""

    difference: float
    """pass@1 of the second model minus that of the first."""
    interval: Interval
    first_better: int
    second_better: int
    p_value: float
    test: str


def compare(first: Sequence[Score], second: Sequence[Score]) -> Paired:
    """Compare two models problem by problem; both sequences must have the same order of problems."""
    differences = [two.rate - one.rate for one, two in zip(first, second, strict=True)]
    first_better = sum(each < -_EPSILON for each in differences)
    second_better = sum(each > _EPSILON for each in differences)
    single = all(score.samples == 1 for score in (*first, *second))
    return Paired(
        difference=mean(differences),
        interval=bootstrap(differences),
        first_better=first_better,
        second_better=second_better,
        p_value=mcnemar(first_better, second_better) if single else sign_flip(differences),
        test=MCNEMAR if single else SIGN_FLIP,
    )
