"""Rules for instructions and responses that become rows, following the reference implementation, as pure functions."""

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
    "instruction.benchmark-text": "contains a benchmark's text",
}
"""The rules for instructions and their meanings, in the order of application."""
ROW_RULES: Mapping[str, str] = {
    "row.placeholder": "leaves work open (todo, your code here)",
    "row.benchmark-text": "contains a benchmark's text",
}
"""The rules for responses and their meanings, in the order of application."""
RULES: Mapping[str, str] = {**INSTRUCTION_RULES, **ROW_RULES}
"""All rules of this module."""


def instruction_drop(instruction: str, *, max_words: int, benchmarks: BenchmarkTexts) -> Drop | None:
    """Return the first rule that drops an instruction, or None."""
    words = len(instruction.split())
    if words > max_words:
        return Drop("instruction.too-long", f"{words} words, {max_words} at most")
    if task := benchmarks.find(instruction):
        return Drop("instruction.benchmark-text", f"contains the text of {task}")
    return None


def row_drop(text: str, code: str, benchmarks: BenchmarkTexts) -> Drop | None:
    """Return the first rule that drops a passing response, or None.

    The rules need not check that the tests executed an assertion: the verdict PASSED implies it.

    Args:
        text: The whole completion.
        code: The answer's code.
        benchmarks: Texts that must not occur.
    """
    lowered = text.lower()
    if word := next((word for word in PLACEHOLDERS if word in lowered), None):
        return Drop("row.placeholder", f"contains {word!r}")
    if task := benchmarks.find(text, code):
        return Drop("row.benchmark-text", f"contains the text of {task}")
    return None


def can_carry_tests(instruction: str, tests: str) -> bool:
    """Return whether the instruction may include the tests: few lines, and it mentions neither tests nor examples."""
    lowered = instruction.lower()
    short = 0 < len([line for line in lines(tests) if line.strip()]) <= TESTS_IN_INSTRUCTION_LINES
    return short and "test" not in lowered and "example" not in lowered


def with_tests(instruction: str, tests: str) -> str:
    """Append the tests to the instruction, in a fence that no string in them can close."""
    longest = max(map(len, re.findall("`+", tests)), default=0)
    fence = "`" * max(3, longest + 1)
    code = tests.strip("\r\n")
    return f"{instruction}\n\nYour code should pass these tests:\n\n{fence}python\n{code}\n{fence}"
