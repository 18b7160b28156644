"""Tables of the measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.rows.workers import Sample

PAPER, FLOOR = "as the paper's server", "fork and exit in gVisor, Python"
"""Rows used in ratios."""
OURS = {1: ("ours 1×1",), 2: ("ours 2×1", "ours 1×2")}
"""Rows with as many slots as workers."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of all values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass
class Cell:
    """One row with a number of workers and a kind of program. A value is the median over its rounds."""

    row: str
    kind: str
    workers: int
    rounds: list[list[Sample]] = field(default_factory=list)
    reason: str = ""
    """Reason why it was not measured."""

    @property
    def faults(self) -> list[str]:
        """Executions with a wrong result."""
        return [fault for samples in self.rounds for sample in samples for fault in sample.faults]

    @property
    def rate(self) -> float:
        """Return executions per second of all workers together."""
        each = [sum(len(one.latencies) / sum(one.latencies) for one in samples) for samples in self.rounds]
        return statistics.median(each)

    def seconds(self, share: float) -> float:
        """Return a percentile of the latencies, in seconds."""
        each = [[latency for one in samples for latency in one.latencies] for samples in self.rounds]
        return statistics.median(percentile(latencies, share) for latencies in each)

    def figures(self, inline: float) -> dict[str, float]:
        """Return all printed figures.

        Args:
            inline: Seconds that its programs take without being executed apart.
        """
        half = self.seconds(0.5)
        return {
            "per_second": self.rate,
            "p50_seconds": half,
            "p99_seconds": self.seconds(0.99),
            "overhead_seconds": half - inline,
            "executions": sum(len(one.latencies) for samples in self.rounds for one in samples),
        }


def lines(cells: list[Cell], inline: dict[str, float], processors: int) -> Iterator[str]:
    """Return the table in Markdown.

    Args:
        cells: All of them.
        inline: Seconds that the programs of a kind take without being executed apart.
        processors: Number of processors, which all ways share.
    """
    yield "| way | program | workers | per second | and core | p50 ms | p99 ms | overhead ms | executions |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for cell in cells:
        begin = f"| {cell.row} | {cell.kind} | {cell.workers} |"
        if cell.reason:
            yield f"{begin} n/a: {cell.reason} | | | | | |"
        elif cell.rounds:
            found = cell.figures(inline.get(cell.kind, 0.0))
            ms = [1e3 * found[f"{name}_seconds"] for name in ("p50", "p99", "overhead")]
            rate = found["per_second"]
            shown = " | ".join(f"{value:.1f}" for value in (rate, rate / processors, *ms))
            yield f"{begin} {shown} | {found['executions']:.0f} |"


def ratios(cells: list[Cell]) -> Iterator[tuple[str, float, str]]:
    """Return the targets: name, value, target value."""
    rates = {(cell.row, cell.kind, cell.workers): cell.rate for cell in cells if cell.rounds}
    for workers, ours in OURS.items():
        for row in ours:
            for kind in ("empty", "typical"):
                have, paper = rates.get((row, kind, workers)), rates.get((PAPER, kind, workers))
                if have and paper:
                    yield f"{row} / paper's way, workers: {workers}, {kind}", have / paper, "at least 1"
            have, floor = rates.get((row, "empty", workers)), rates.get((FLOOR, "fork", workers))
            if have and floor:
                yield f"{row} / Python's fork in gVisor, workers: {workers}", have / floor, "at least 0.7"
    for cell in cells:
        if cell.row in OURS[2] and cell.workers == 2 and cell.rounds:
            spread = cell.seconds(0.99) / cell.seconds(0.5)
            yield f"p99 / p50 of {cell.row}, 2 callers, {cell.kind}", spread, "below 3"
