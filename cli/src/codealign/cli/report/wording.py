"""What the report calls things, and how it writes numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from codealign.api.coordinator.v1 import coordinator_pb2 as api

MINUS = "\N{MINUS SIGN}"

_BENCHMARKS: Mapping[str, str] = {
    "humaneval": "HumanEval",
    "humaneval+": "HumanEval+",
    "mbpp": "MBPP",
    "mbpp+": "MBPP+",
    "nanoeval": "NanoEval",
}
_BENCHMARK_ORDER = ("humaneval+", "mbpp+", "humaneval", "mbpp")

# What steers a terminal or a layout, or cannot be seen: C0 and C1, bidirectional and zero-width characters, tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Text that somebody else wrote, with every character that one would not see shown: ␛, ⟨U+202E⟩."""
    return _HIDDEN.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the block "Control Pictures"
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else f"⟨U+{code:04X}⟩"


class Words:
    """What a run's stages and reasons are called, as its coordinator says.

    Args:
        pipeline: The run's. Empty: the coordinator has it no longer; names stand for themselves.
    """

    def __init__(self, pipeline: api.Pipeline) -> None:
        self._stages = {stage.name: stage for stage in pipeline.stages}
        # The verdict PASSED drops nothing, so no stage lists it among its reasons.
        self._reasons = {"PASSED": "passed its tests"}
        for stage in pipeline.stages:
            self._reasons.update(stage.reasons)

    def title(self, stage: str) -> str:
        """A stage's title: "Seed → concepts"; of an unknown one its name as it is."""
        return (self._stages[stage].title if stage in self._stages else "") or stage

    def purpose(self, stage: str) -> str:
        """What a stage does, in a sentence; empty: not known."""
        return self._stages[stage].description if stage in self._stages else ""

    def meaning(self, reason: str, stage: str = "") -> str:
        """What a drop's reason, or a verdict, means; empty: not known.

        Args:
            reason: Its name.
            stage: The stage that dropped for it, where stages use one name for two things.
        """
        own = self._stages[stage].reasons.get(reason, "") if stage in self._stages else ""
        return own or self._reasons.get(reason, "")

    def meaning_or_name(self, reason: str, stage: str = "") -> str:
        """The same; of an unknown one the name without its dashes."""
        return self.meaning(reason, stage) or reason.replace("-", " ").replace("_", " ").replace(".", ": ").lower()


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Names and numbers, the largest number first."""
    return sorted(((name, number) for name, number in counts.items() if number), key=lambda item: (-item[1], item[0]))


def benchmark_title(benchmark: str) -> str:
    """A benchmark's name as it is written: "HumanEval+" for "humaneval+"."""
    return _BENCHMARKS.get(benchmark, benchmark)


def benchmark_rank(benchmark: str) -> tuple[int, str]:
    """A fixed order of benchmarks, so that none is shown first for its result."""
    known = benchmark in _BENCHMARK_ORDER
    return (_BENCHMARK_ORDER.index(benchmark) if known else len(_BENCHMARK_ORDER), benchmark)


def percent(value: float) -> str:
    """A share of 1: "28.0%"."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else "not known"


def share(number: int, whole: int) -> str:
    """A part of a whole: "23.2%", "< 0.1%"; no whole: empty."""
    if not whole:
        return ""
    return "< 0.1%" if 0 < number / whole < 0.0005 else percent(number / whole)


def points(difference: float) -> str:
    """A difference of shares, with its sign: "+3.1", "−0.6"."""
    if not math.isfinite(difference):
        return "not known"
    text = f"{100 * abs(difference):.1f}"
    return text if text == "0.0" else f"{'+' if difference > 0 else MINUS}{text}"


def percent_interval(interval: api.Interval | None) -> str:
    """An interval of shares: "20.1 to 36.2%"; none: empty."""
    return f"{100 * interval.low:.1f} to {percent(interval.high)}" if interval else ""


def points_interval(interval: api.Interval | None) -> str:
    """An interval of differences: "−4.3 to +10.4"; none: empty."""
    return f"{points(interval.low)} to {points(interval.high)}" if interval else ""


def chance(p_value: float) -> str:
    """A p-value with as many digits as mean something: "p = 0.42", "p = 0.031", "p < 0.001"."""
    if not math.isfinite(p_value):
        return "p not known"
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def loss(value: float) -> str:
    """A loss: "0.812"."""
    return f"{value:.3f}" if math.isfinite(value) else "not a number"


def short(identifier: str) -> str:
    """The first digits of an id or a revision."""
    return identifier[:12]


def pretty_json(text: str) -> str:
    """JSON with a line for each setting; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
