"""The prompt templates. A prompt is a prefix (header and few-shot examples) and a suffix (the item).

All items of a prefix group share the prefix to the character, so an engine that keeps the attention state of
prefixes computes it once. The tags are what `sections`, `parsing` and the stop strings look for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.reading.section import HEADING, Section

_CONCEPTS_HEADER = """\
# From code to concepts

Each example shows a Python function and, between <concepts> tags, the programming concepts that someone must
understand to write it: two to five short, general terms, separated by commas.
"""

_INSTRUCTION_HEADER = """\
# From concepts to tasks

Each example shows the property that a coding task is to have and, between <task> tags, a task with that property.
A task stands by itself: it names what to write and its signature, says what goes in and comes out, and settles the
edge cases. A function is one function, a class one class with its methods, a program a few cooperating parts with
an entry function. It is easy, medium or hard for a trained programmer.
"""

_RESPONSE_HEADER = """\
# Tasks, answers and tests

Each example shows a coding task, an answer with its reasoning and complete code, and then, between <tests> tags,
assertions that run after that code and pass only if the answer does what the task says.
"""


CONCEPTS = Section("concepts", "<code>")
INSTRUCTION = Section("task", "<property>")
RESPONSE = Section("tests", "<task>", fenced=True)


def templates_sha256() -> str:
    """A hash of the templates and of the marks in them: part of each generating stage's configuration."""
    probe = FewShot("n", "s", "c", "l", "d", ("x", "y"), "i", "r", "t")
    texts = [
        concepts_prefix([probe]),
        concepts_suffix(1, "s"),
        instruction_prefix([probe]),
        instruction_suffix(1, "c", "l", "d", ("x", "y")),
        response_prefix([probe]),
        response_suffix(1, "i"),
    ]
    for section in (CONCEPTS, INSTRUCTION, RESPONSE):
        texts += [section.closing_tag, section.begins_example, HEADING]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def concepts_prefix(examples: Sequence[FewShot]) -> str:
    """Seed → concepts: the shared part."""
    shots = [
        f"{concepts_suffix(number, shot.seed)}{', '.join(shot.concepts)}\n</concepts>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return _join(_CONCEPTS_HEADER, shots)


def concepts_suffix(number: int, code: str) -> str:
    """Seed → concepts: the item; the completion is the comma-separated list."""
    return f"{HEADING} {number}\n\n<code>\n{code}\n</code>\n<concepts>\n"


def instruction_prefix(examples: Sequence[FewShot]) -> str:
    """Concepts → instruction: the shared part."""
    shots = [
        instruction_suffix(number, shot.category, shot.language, shot.difficulty, shot.concepts)
        + f"{shot.instruction}\n</task>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return _join(_INSTRUCTION_HEADER, shots)


def instruction_suffix(number: int, category: str, language: str, difficulty: str, concepts: Sequence[str]) -> str:
    """Concepts → instruction: the item; the completion is the task."""
    return (
        f"{HEADING} {number}\n\n<property>\ncategory: {category}\nlanguage: {language}\ndifficulty: {difficulty}\n"
        f"concepts: {', '.join(concepts)}\n</property>\n<task>\n"
    )


def response_prefix(examples: Sequence[FewShot]) -> str:
    """Instruction → response: the shared part."""
    shots = [
        f"{response_suffix(number, shot.instruction)}{shot.response}\n</answer>\n"
        f"<tests>\n```python\n{shot.tests}\n```\n</tests>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return _join(_RESPONSE_HEADER, shots)


def response_suffix(number: int, instruction: str) -> str:
    """Instruction → response: the item; the completion is the answer, then the tests."""
    return f"{HEADING} {number}\n\n<task>\n{instruction}\n</task>\n<answer>\n"


def _join(header: str, shots: Sequence[str]) -> str:
    return "\n".join([header, *shots]) + "\n"
