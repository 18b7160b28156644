"""Names of stages, reasons and benchmarks in the report, and formats of its numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb

MINUS = "\N{MINUS SIGN}"

_BENCHMARKS: Mapping[str, str] = {
    "humaneval": "HumanEval",
    "humaneval+": "HumanEval+",
    "mbpp": "MBPP",
    "mbpp+": "MBPP+",
    "nanoeval": "NanoEval",
}
_BENCHMARK_ORDER = ("humaneval+", "mbpp+", "humaneval", "mbpp")

# Invisible characters, and those that control terminals or layout: C0, C1, bidirectional, zero-width, fillers, tags,
# supplementary variation selectors (which can carry any bytes).
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Return untrusted text with every invisible character made visible: ␛, ⟨U+202E⟩."""
    return _HIDDEN.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the block "Control Pictures"
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else f"⟨U+{code:04X}⟩"


class Words:
    """Titles and meanings of a run's stages and reasons, as its coordinator describes them.

    Args:
        pipeline: The run's pipeline. If empty (the coordinator no longer has it), names are shown as they are.
    """

    def __init__(self, pipeline: api.Pipeline) -> None:
        self._stages = {stage.name: stage for stage in pipeline.stages}
        # The verdict PASSED drops nothing, so no stage lists it among its reasons.
        self._reasons = {"PASSED": "passed its tests"}
        for stage in pipeline.stages:
            self._reasons.update(stage.reasons)

    def title(self, stage: str) -> str:
        """Return a stage's title, e.g. "Seed → concepts", or its name if unknown."""
        return (self._stages[stage].title if stage in self._stages else "") or stage

    def purpose(self, stage: str) -> str:
        """Return a stage's description, or "" if unknown."""
        return self._stages[stage].description if stage in self._stages else ""

    def meaning(self, reason: str, stage: str = "") -> str:
        """Return the meaning of a drop reason or verdict, or "" if unknown.

        Args:
            reason: Name of the reason or verdict.
            stage: The stage that dropped the item, in case stages use the same name differently.
        """
        own = self._stages[stage].reasons.get(reason, "") if stage in self._stages else ""
        return own or self._reasons.get(reason, "")

    def meaning_or_name(self, reason: str, stage: str = "") -> str:
        """Return the meaning of a reason, or its name in plain words if unknown."""
        return self.meaning(reason, stage) or reason.replace("-", " ").replace("_", " ").replace(".", ": ").lower()


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return names and numbers, largest first."""
    return sorted(((name, number) for name, number in counts.items() if number), key=lambda item: (-item[1], item[0]))


def benchmark_title(benchmark: str) -> str:
    """Return a benchmark's display name: "HumanEval+" for "humaneval+"."""
    return _BENCHMARKS.get(benchmark, benchmark)


def benchmark_rank(benchmark: str) -> tuple[int, str]:
    """Return a fixed sort key for benchmarks, so that their order does not depend on results."""
    known = benchmark in _BENCHMARK_ORDER
    return (_BENCHMARK_ORDER.index(benchmark) if known else len(_BENCHMARK_ORDER), benchmark)


def percent(value: float) -> str:
    """Format a fraction of 1: "28.0%"."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else "unknown"


def share(number: int, whole: int) -> str:
    """Format a part of a whole: "23.2%", "< 0.1%", or "" if the whole is 0."""
    if not whole:
        return ""
    return "< 0.1%" if 0 < number / whole < 0.0005 else percent(number / whole)


def points(difference: float) -> str:
    """Format a difference of fractions in percentage points, with its sign: "+3.1", "−0.6"."""
    if not math.isfinite(difference):
        return "unknown"
    text = f"{100 * abs(difference):.1f}"
    return text if text == "0.0" else f"{'+' if difference > 0 else MINUS}{text}"


def percent_interval(interval: api.Interval | None) -> str:
    """Format an interval of fractions: "20.1 to 36.2%", or "" if there is none."""
    return f"{100 * interval.low:.1f} to {percent(interval.high)}" if interval else ""


def points_interval(interval: api.Interval | None) -> str:
    """Format an interval of differences: "−4.3 to +10.4", or "" if there is none."""
    return f"{points(interval.low)} to {points(interval.high)}" if interval else ""


def chance(p_value: float) -> str:
    """Format a p-value with its significant digits: "p = 0.42", "p = 0.031", "p < 0.001"."""
    if not math.isfinite(p_value):
        return "p unknown"
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def loss(value: float) -> str:
    """Format a loss: "0.812"."""
    return f"{value:.3f}" if math.isfinite(value) else "not a number"


def short(identifier: str) -> str:
    """Return the first digits of an id or a revision."""
    return identifier[:12]


def pretty_json(text: str) -> str:
    """Indent JSON. Text that is not JSON is returned as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def judgement_words(found: pb.Judgement) -> str:
    """Describe the comparison of all attempts at an instruction, for people."""
    agreeing = max((each.class_size for each in found.attempts if each.class_number == 1), default=0)
    parts = [f"{len(found.attempts)} attempts compared at {found.inputs} inputs, {agreeing} agree with the best"]
    if found.HasField("mutation_score"):
        parts.append(f"its own tests detect {found.mutation_score:.0%} of its mutants")
    if found.tests:
        parts.append("added tests: " + "; ".join(each.text for each in found.added_tests))
    return "; ".join(parts)
