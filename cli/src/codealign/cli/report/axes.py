"""Chart axes: round ticks, and the position of a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from codealign.cli.report.wording import MINUS

_ROUND = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """A range of numbers with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    decimals: int

    def at(self, value: float) -> float:
        """Return a value's position: 0 at the low end, 1 at the high end, clamped."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def label(self, tick: float) -> str:
        """Return a tick's text. All ticks have the same number of decimals."""
        if tick and (abs(tick) < 1e-3 or abs(tick) >= 1e6):
            return power(tick)
        text = f"{abs(tick):,.{self.decimals}f}"
        return f"{MINUS}{text}" if tick < 0 and float(text.replace(",", "")) else text


def axis(low: float, high: float, *, wanted: int = 5, whole: bool = False, snap: bool = True) -> Axis:
    """Return an axis that covers a range of values.

    Args:
        low: Smallest value.
        high: Largest value.
        wanted: Approximate number of ticks.
        whole: Place ticks on whole numbers only.
        snap: Extend the axis to ticks. Otherwise it ends at the values.
    """
    if not high > low:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    step = _step((high - low) / wanted)
    if whole:
        step = max(1.0, step)
    # Tolerate rounding errors in values that are multiples of the step.
    first, last = low / step, high / step
    start, end = (math.floor, math.ceil) if snap else (math.ceil, math.floor)
    ticks = tuple(number * step for number in range(start(round(first, 9)), end(round(last, 9)) + 1))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if snap:
        low, high = ticks[0], ticks[-1]
    return Axis(low, high, ticks, min(decimals, 6))


def _step(span: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not below the span."""
    power_of_ten = 10.0 ** math.floor(math.log10(span))
    return next(factor * power_of_ten for factor in _ROUND if factor * power_of_ten >= span * (1 - 1e-9))


def power(number: float) -> str:
    """Format a very small or large number: "1 × 10⁻⁵"."""
    mantissa, exponent = f"{number:.2e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"{float(mantissa):g} × 10{digits}".replace("-", MINUS)
