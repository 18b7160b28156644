"""Parsing of completions. One that cannot be parsed becomes a `Rejected` with a reason from `REASONS`.

A response is an answer, `</answer>`, and the tests after `<tests>`, which end at `</tests>` or at the end of the text.
A pair is a task, `</task>`, and the answer after `<answer>`, which ends at `</answer>` or at the end of the text.
In each section the blocks marked as Python count or, if there are none, the unmarked blocks. `fences` finds a text's
blocks, and `assembly` joins several into one program. If there is a single block, the program is that block byte for
byte, including the ending of its last line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from codealign.common.text import lines
from codealign.coordinator.reading import assembly, tags
from codealign.coordinator.reading.fences import PYTHON, UNMARKED, Block, blocks
from codealign.coordinator.reading.python_code import compiles, ends_in_literal
from codealign.coordinator.reading.terms import terms_of

REASONS = {
    "cut-off": "the completion reached its token limit before its end",
    "cut-by-stop": "a stop string ended the completion too early",
    "content-filter": "the endpoint's filter or the model refused to write this",
    "tool-call": "the model called a tool instead of writing text",
    "empty": "the completion is empty or almost empty",
    "no-concepts": "no list of one to ten short terms",
    "no-answer-end": "the answer is not closed by </answer>",
    "no-tests-section": "no <tests> section follows the answer",
    "no-task-end": "the task is not closed by </task>",
    "no-answer-section": "no <answer> section follows the task",
    "no-code-block": "the answer contains no Python block",
    "no-tests-block": "the tests contain no Python block",
    "prompt-too-long": "the prompt does not fit the model's context",
    "prompt-refused": "inference refused the prompt for a reason other than its length",
}

_MAX_CONCEPTS = 10
_MAX_CONCEPT_CHARS = 60
_MIN_INSTRUCTION_WORDS = 5
_END_MARK = re.compile(r"(?:<\|[\w-]{1,40}\|>|</s>|<eos>|<EOT>|<end_of_turn>)\Z")
"""Marks that some endpoints leave after a text. No line of code ends with one outside strings and comments."""
_END_MARK_CHARS = 44
"""Length of the longest mark."""
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n|\n|\r))*")
_REPEATED_TASK = re.compile(r"\A\s*<task>[ \t]*(?=[\r\n])")
_REPEATED_TAG = re.compile(r"\s*<answer>[ \t]*(?=[\r\n])")


@dataclass(frozen=True)
class Rejected:
    """A completion that could not be parsed."""

    reason: str
    detail: str


@dataclass(frozen=True)
class ParsedResponse:
    """The parts of a response."""

    answer: str
    """The answer as written, without surrounding blank lines."""
    code: str
    tests: str


@dataclass(frozen=True)
class ParsedPair:
    """A task and its answer."""

    task: str
    answer: str
    """The answer as written, without surrounding blank lines."""
    code: str


def concepts(text: str, *, cut_off: bool) -> list[str] | Rejected:
    """Return the distinct terms of a seed → concepts completion, in order."""
    if cut_off:
        return _cut_off(text)
    terms = terms_of(text)
    if not terms:
        return Rejected("empty", f"no term in {_amount(text)}")
    longest = max(map(len, terms))
    if len(terms) > _MAX_CONCEPTS or longest > _MAX_CONCEPT_CHARS:
        return Rejected("no-concepts", f"{_count(len(terms), 'term')}, the longest of {_count(longest, 'character')}")
    return terms


def instruction(text: str, *, cut_off: bool) -> str | Rejected:
    """Return the task of a concepts → instruction completion."""
    if cut_off:
        return _cut_off(text)
    task = text.strip()
    words = len(task.split())
    if words < _MIN_INSTRUCTION_WORDS:
        return Rejected("empty", f"{_count(words, 'word')}, fewer than {_MIN_INSTRUCTION_WORDS}")
    return task


def response(text: str, *, cut_off: bool) -> ParsedResponse | Rejected:
    """Return the answer, code and tests of an instruction → response completion."""
    if cut_off:
        return _cut_off(text)
    text = _without_end_marks(text)
    if not text.strip():
        return Rejected("empty", "nothing but white space" if text else "nothing")
    found = blocks(text)
    ended = tags.find(text, found, "/answer")
    opened = ended and tags.find(text, found, "tests?", ended.end)
    closed = opened and tags.find(text, found, "/tests?", opened.end)
    if ended is None:
        return Rejected("no-answer-end", _without_end(text, found))
    if opened is None:
        return Rejected("no-tests-section", f"no <tests> in {_amount(text[ended.end :])} after </answer>")
    end = closed.start if closed else len(text)
    answer_blocks = [block for block in found if block.start < ended.start]
    tests_blocks = [block for block in found if opened.end <= block.start < end]
    code, tests = python_blocks(answer_blocks), python_blocks(tests_blocks)
    if not code:
        return Rejected("no-code-block", f"the answer contains {_kinds(answer_blocks)}")
    if not tests:
        return Rejected("no-tests-block", f"the tests contain {_kinds(tests_blocks)}")
    tests_code = assembly.tests_program([block.content for block in tests])
    if not (tests[-1].closed or closed or compiles(tests_code)):
        amount = _amount(tests[-1].content)
        return Rejected("cut-off", f"ends inside a block of the tests that does not compile, after {amount} of it")
    if ends_in_literal(tests[-1].content):
        return Rejected("cut-by-stop", "the tests end inside a string literal, which holds a closing fence and a tag")
    program = assembly.program([block.content for block in code], tests_code)
    return ParsedResponse(_answer(text[: ended.start], answer_blocks), program, tests_code)


def pair(text: str) -> ParsedPair | Rejected:
    """Return the task, and the answer with its code, of a snippet → task and answer completion."""
    text = _without_end_marks(text)
    if not text.strip():
        return Rejected("empty", "nothing")
    found = blocks(text)
    ended = tags.find(text, found, "/task")
    opened = ended and tags.find(text, found, "answer", ended.end)
    if ended is None:
        return Rejected("no-task-end", f"no </task> in {_amount(text)}")
    task = instruction(_REPEATED_TASK.sub("", text[: ended.start]), cut_off=False)
    if isinstance(task, Rejected):
        return task
    if opened is None:
        return Rejected("no-answer-section", f"no <answer> in {_amount(text[ended.end :])} after </task>")
    closed = tags.find(text, found, "/answer", opened.end)
    end = closed.start if closed else len(text)
    answer_blocks = [block for block in found if opened.end <= block.start < end]
    code = python_blocks(answer_blocks)
    if not code:
        return Rejected("no-code-block", f"the answer contains {_kinds(answer_blocks)}")
    program = assembly.program([block.content for block in code], "")
    last = answer_blocks[-1]
    if not (last.closed or closed or compiles(program)):
        return Rejected("cut-off", f"ends inside a block of the answer, after {_amount(last.content)} of it")
    return ParsedPair(task, text[opened.end : end].strip("\n\r").rstrip(), program)


def _without_end_marks(text: str) -> str:
    """Return the text without trailing end marks and the white space around them."""
    end, marked = len(text), False
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        found = _END_MARK.search(text, max(0, end - _END_MARK_CHARS), end)
        if found is None:
            return text[:end] if marked else text
        end, marked = found.start(), True


def python_blocks(found: Sequence[Block]) -> list[Block]:
    """Return the blocks that are code: those marked as Python or, if there are none, the unmarked ones."""
    full = [block for block in found if block.content.strip()]
    marked = [block for block in full if block.language == PYTHON]
    return marked or [block for block in full if block.language == UNMARKED]


def _answer(text: str, found: Sequence[Block]) -> str:
    """Return the answer without surrounding blank lines and without an opening tag that repeats the prompt's.

    If its last block has no closing fence, the answer ends where the block ends.
    """
    repeated = _REPEATED_TAG.match(text)
    start = repeated.end() if repeated else 0
    if before := _BLANK_LINES.match(text, start):
        start = before.end()
    end = found[-1].end if not found[-1].closed else 0
    return text[start : max(end, len(text.rstrip(" \t\r\n")))]


def _cut_off(text: str) -> Rejected:
    return Rejected("cut-off", f"{REASONS['cut-off']}, after {_amount(text)}")


def _without_end(text: str, found: Sequence[Block]) -> str:
    inside = any("</answer>" in text[block.start : block.end] for block in found)
    where = " outside a code block" if inside else ""
    return f"the answer ends after {_amount(text)} without </answer>{where}"


def _kinds(found: Sequence[Block]) -> str:
    """Describe blocks for users, as in "2 blocks, both marked bash"."""
    if not found:
        return "no fenced block"
    kinds = ["empty" if not block.content.strip() else f"marked {block.language}" for block in found]
    distinct = list(dict.fromkeys(kinds))
    if len(found) == 1:
        return f"1 block, {kinds[0]}"
    if len(distinct) == 1:
        return f"{len(found)} blocks, {'both' if len(found) == 2 else 'all'} {distinct[0]}"
    return f"{len(found)} blocks: {', '.join(distinct)}"


def _amount(text: str) -> str:
    return _count(len(lines(text)), "line") if text.strip() else "nothing"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
