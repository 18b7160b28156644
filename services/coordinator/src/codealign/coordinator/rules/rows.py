"""Which instructions and responses can become rows: the reference's rules, as pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from codealign.common.text import lines
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.seeds import Drop

PLACEHOLDERS = (
    "todo",
    "fixme",
    "your code goes here",
    "your code here",
    "write your code here",
    "notimplemented",
)
TESTS_IN_INSTRUCTION_LINES = 5
INSTRUCTION_RULES: Mapping[str, str] = {
    "instruction.too-long": "too many words",
    "instruction.benchmark-text": "holds a benchmark's text",
}
"""The rules for instructions and what they mean, in the order of their application."""
ROW_RULES: Mapping[str, str] = {
    "row.placeholder": "leaves work open (todo, your code here)",
    "row.benchmark-text": "holds a benchmark's text",
}
"""The rules for responses and what they mean, in the order of their application."""
RULES: Mapping[str, str] = {**INSTRUCTION_RULES, **ROW_RULES}
"""Every rule of this module."""


def instruction_drop(instruction: str, *, max_words: int, benchmarks: BenchmarkTexts) -> Drop | None:
    """The first rule that drops an instruction, or None."""
    words = len(instruction.split())
    if words > max_words:
        return Drop("instruction.too-long", f"{words} words, {max_words} at most")
    if task := benchmarks.find(instruction):
        return Drop("instruction.benchmark-text", f"holds the text of {task}")
    return None


def row_drop(text: str, code: str, benchmarks: BenchmarkTexts) -> Drop | None:
    """The first rule that keeps a passing response from becoming a row, or None.

    That its tests executed an assertion, in whatever style they are, is in its verdict: PASSED means that.

    Args:
        text: The whole completion.
        code: The answer's code.
        benchmarks: Texts that must not occur.
    """
    lowered = text.lower()
    if word := next((word for word in PLACEHOLDERS if word in lowered), None):
        return Drop("row.placeholder", f"holds {word!r}")
    if task := benchmarks.find(text, code):
        return Drop("row.benchmark-text", f"holds the text of {task}")
    return None


def can_carry_tests(instruction: str, tests: str) -> bool:
    """Whether the tests may be appended to the instruction: few lines, and it mentions neither test nor example."""
    lowered = instruction.lower()
    short = len([line for line in lines(tests) if line.strip()]) <= TESTS_IN_INSTRUCTION_LINES
    return short and "test" not in lowered and "example" not in lowered


def with_tests(instruction: str, tests: str) -> str:
    """The instruction with its tests appended, in a fence that no string in them can close."""
    longest = max(map(len, re.findall("`+", tests)), default=0)
    fence = "`" * max(3, longest + 1)
    code = tests.strip("\r\n")
    return f"{instruction}\n\nYour code should pass these tests:\n\n{fence}python\n{code}\n{fence}"
