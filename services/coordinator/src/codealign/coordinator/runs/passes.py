"""Pass rates of a run's instructions: a Beta prior fitted to all of them, and the posterior of one."""

from __future__ import annotations

import math
from typing import NamedTuple

_MEANS = [1 / (1 + math.exp(-step / 2)) for step in range(-10, 9)]
"""Mean pass rates that are tried, 0.7% to 98%, evenly spaced on the logit scale."""
_SIZES = [2.0**step for step in range(-3, 8)]
"""Values of alpha + beta that are tried: from "an instruction always or never passes" to "all are alike"."""
_FINER = 4
"""Steps into which the best cell of the grid is divided in each direction."""
_GROWTH = 1.1
"""Growth of the number of attempts after which the prior is fitted again."""
_DIGITS = 6


class Prior(NamedTuple):
    """Beta distribution of the pass rate over instructions."""

    alpha: float
    beta: float


UNKNOWN = Prior(1.0, 1.0)
"""Prior before anything is known."""


def chance(prior: Prior, drawn: int, passed: int, more: int) -> float:
    """Return the posterior probability that at least one of `more` attempts passes.

    Args:
        prior: Distribution over instructions.
        drawn: Attempts so far.
        passed: Attempts of these that passed.
        more: Further attempts.
    """
    failure = 1.0
    for number in range(more):
        failure *= (prior.beta + drawn - passed + number) / (prior.alpha + prior.beta + drawn + number)
    return 1.0 - failure


class Passes:
    """Attempts and passes of a run's instructions.

    The likelihood of an instruction's results does not depend on when its draws were stopped, so the prior is fitted by
    maximum likelihood over all of them; moments would be biased, since instructions are left after failures.
    """

    def __init__(self) -> None:
        self._drawn: list[int] = []
        """By number: instructions with more attempts than this. The likelihood needs only these three lists."""
        self._passed: list[int] = []
        self._failed: list[int] = []
        self._attempts = self._fitted_at = 0
        self.prior = UNKNOWN
        """The prior, fitted again whenever the attempts have grown by a tenth."""

    @property
    def instructions(self) -> int:
        """Instructions with an attempt."""
        return self._drawn[0] if self._drawn else 0

    def add(self, drawn: int, passed: int, more: int, more_passed: int) -> None:
        """Add attempts at an instruction.

        Args:
            drawn: Its attempts before.
            passed: Its passes before.
            more: Further attempts.
            more_passed: Passes among these.
        """
        _count(self._drawn, drawn, more)
        _count(self._passed, passed, more_passed)
        _count(self._failed, drawn - passed, more - more_passed)
        self._attempts += more
        if self._attempts > _GROWTH * self._fitted_at:
            # Here, so that the moment depends on what was added alone, not on who asks for the prior.
            self._fitted_at, self.prior = self._attempts, self._fit()

    def _fit(self) -> Prior:
        cells = [(mean, size) for mean in _MEANS for size in _SIZES]
        mean, size = max(cells, key=self._score)
        middle = math.log(mean / (1 - mean))
        steps = [step / _FINER for step in range(-_FINER, _FINER + 1)]
        finer = [(1 / (1 + math.exp(-middle - step / 2)), size * 2.0**other) for step in steps for other in steps]
        mean, size = max(finer, key=self._score)
        return Prior(mean * size, (1 - mean) * size)

    def _score(self, cell: tuple[float, float]) -> float:
        """Return the log-likelihood with a weak preference for a size of 2, worth less than a few instructions.

        Rounded, so that the last digits of a machine's logarithm decide nothing.
        """
        mean, size = cell
        alpha, beta = mean * size, (1 - mean) * size
        total = sum(count * math.log(alpha + number) for number, count in enumerate(self._passed))
        total += sum(count * math.log(beta + number) for number, count in enumerate(self._failed))
        total -= sum(count * math.log(size + number) for number, count in enumerate(self._drawn))
        return round(total - math.log2(size / 2) ** 2 / 16, _DIGITS)


def _count(counts: list[int], start: int, more: int) -> None:
    counts.extend([0] * (start + more - len(counts)))
    for number in range(start, start + more):
        counts[number] += 1
