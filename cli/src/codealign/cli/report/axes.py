"""Axes: round ticks, and where on an axis a value lies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from codealign.cli.report.wording import MINUS

_ROUND = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    decimals: int

    def at(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one, never outside."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def label(self, tick: float) -> str:
        """A tick's text, all with the same number of decimals."""
        if tick and (abs(tick) < 1e-3 or abs(tick) >= 1e6):
            return power(tick)
        text = f"{abs(tick):,.{self.decimals}f}"
        return f"{MINUS}{text}" if tick < 0 and float(text.replace(",", "")) else text


def axis(low: float, high: float, *, wanted: int = 5, whole: bool = False, snap: bool = True) -> Axis:
    """An axis that covers these values.

    Args:
        low: The smallest.
        high: The largest.
        wanted: Ticks, more or less.
        whole: Ticks are whole numbers.
        snap: The ends lie on ticks; else they are the values, and ticks lie between.
    """
    if not high > low:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    step = _step((high - low) / wanted)
    if whole:
        step = max(1.0, step)
    # A value that is a multiple of the step but for rounding is taken as one.
    first, last = low / step, high / step
    start, end = (math.floor, math.ceil) if snap else (math.ceil, math.floor)
    ticks = tuple(number * step for number in range(start(round(first, 9)), end(round(last, 9)) + 1))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if snap:
        low, high = ticks[0], ticks[-1]
    return Axis(low, high, ticks, min(decimals, 6))


def _step(span: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below the span."""
    power_of_ten = 10.0 ** math.floor(math.log10(span))
    return next(factor * power_of_ten for factor in _ROUND if factor * power_of_ten >= span * (1 - 1e-9))


def power(number: float) -> str:
    """A very small or large number: "1 × 10⁻⁵"."""
    mantissa, exponent = f"{number:.2e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"{float(mantissa):g} × 10{digits}".replace("-", MINUS)
