"""What the report calls things, and how it writes numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from codealign.api.coordinator.v1 import coordinator_pb2 as api

MINUS = "\N{MINUS SIGN}"

STAGES: Mapping[str, tuple[str, str]] = {
    "seeds": ("Seeds", "functions of real code, filtered"),
    "concepts": ("Concepts", "what each seed is about"),
    "instructions": ("Instructions", "a task from these concepts"),
    "responses": ("Responses", "answers with tests, drawn until one passes"),
    "execution": ("Execution", "answer and tests run in the sandbox"),
    "selection": ("Selection", "one pass for each task, no duplicates"),
}
"""A stage's title and what it does, by its name."""

VERDICTS: Mapping[str, str] = {
    "PASSED": "passed its tests",
    "FAILED_ASSERTION": "an assertion failed",
    "RAISED": "raised an exception",
    "SYNTAX_ERROR": "does not compile",
    "TIMED_OUT": "ran out of time",
    "OUT_OF_MEMORY": "ran out of memory",
    "OUTPUT_LIMIT": "wrote too much output",
    "PROCESS_LIMIT": "started too many processes",
    "DISK_LIMIT": "filled its disk",
    "CRASHED": "ended by a signal",
    "EXITED_EARLY": "ended before its last test",
    "NO_TESTS": "executed no assertion",
    "FLAKY": "passed in some runs only",
    "COMPLETED": "ran without tests",
    "REFUSED": "could not be run",
    "INFRASTRUCTURE": "no verdict: the sandbox's own fault",
}
REASONS: Mapping[str, str] = {
    "seed.syntax-error": "not a function that compiles",
    "seed.benchmark-text": "holds a benchmark's text",
    "seed.no-return": "returns no value",
    "seed.unresolved-name": "needs a name that is defined elsewhere",
    "seed.forbidden-word": "marked as unfinished (todo, fixme, bug)",
    "seed.forbidden-import": "imports a module for files, processes or plots",
    "seed.too-long": "too many lines",
    "seed.no-argument": "takes no argument",
    "seed.near-duplicate": "nearly the same as another seed",
    "cut-off": "reached the token limit before its end",
    "cut-by-stop": "ended by a stop string inside its text",
    "content-filter": "refused by the endpoint's filter, or by the model",
    "tool-call": "the model called a tool instead of writing text",
    "empty": "came back empty, or nearly so",
    "no-concepts": "not a list of one to ten short terms",
    "no-answer-end": "the answer is not closed",
    "no-tests-section": "no tests follow the answer",
    "no-code-block": "no Python block in the answer",
    "no-tests-block": "no Python block in the tests",
    "prompt-too-long": "the prompt does not fit the model's context",
    "prompt-refused": "the prompt was refused for another reason than its length",
    "instruction.too-long": "too many words",
    "instruction.benchmark-text": "holds a benchmark's text",
    "row.placeholder": "leaves work open (todo, your code here)",
    "row.benchmark-text": "holds a benchmark's text",
    "dedup.instruction": "same instruction as another row",
    "dedup.response": "same response as another row",
    "dedup.function-names": "same function names as another row",
    "dedup.class-names": "same class names as another row",
    "dedup.near-instruction": "instruction nearly the same as another's",
    "dedup.near-response": "response nearly the same as another's",
    "dedup.near-code": "code nearly the same as another's",
    "selection.another-pass-was-chosen": "another pass of the same task was chosen",
}
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


def stage_title(stage: str) -> str:
    """A stage's title: "Seeds" for "seeds"; an unknown name as it is."""
    return STAGES[stage][0] if stage in STAGES else stage


def known_words(reason: str) -> str:
    """What a drop's reason, or a verdict, means; empty: not known."""
    return REASONS.get(reason) or VERDICTS.get(reason) or ""


def reason_words(reason: str) -> str:
    """What a drop's reason, or a verdict, means; an unknown one without its dashes."""
    return known_words(reason) or reason.replace("-", " ").replace("_", " ").replace(".", ": ")


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
