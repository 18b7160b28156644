"""Reading of responses that others published: the answer, its code, and its tests if the text holds them apart.

In order: tags as in our prompts (`</answer>`, `<tests>`); a heading of the reference's raw form (`[Tests]`) or of
Markdown; a last Python block after another one that contains an assertion.
A text without a fence is code if all of it is Python.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from codealign.common.foreign_python import without_warnings
from codealign.coordinator.reading import assembly, parsing
from codealign.coordinator.reading.fences import Block, blocks
from codealign.coordinator.reading.parsing import ParsedResponse, python_blocks

VERSION = 1
"""Raise it whenever a text is read differently. Part of an Import's identity."""

_HEADING = re.compile(
    r"^[ \t]*(?:\[tests?\]|#{1,6}[ \t]*(?:tests?|unit tests|test cases)|\*\*(?:tests?|unit tests|test cases):?\*\*)"
    r"[ \t]*:?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_PROGRAM = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.For)
"""Statements that prose which happens to be valid Python does not contain."""


def response(text: str, tests: str = "") -> ParsedResponse:
    """Return the parts of a published response. Code and tests are empty if there are none.

    Args:
        text: The response.
        tests: Its tests, if they are published separately: Python, fenced or not.
    """
    if tests.strip():
        found = blocks(text)
        program = _tests(tests)
        return ParsedResponse(_trimmed(text), _code(text, found, program), program)
    tagged = parsing.response(text, cut_off=False)
    if isinstance(tagged, ParsedResponse):
        return tagged
    found = blocks(text)
    start, after = _split(text, found)
    if start is None:
        return ParsedResponse(_trimmed(text), _code(text, found, ""), "")
    program = assembly.tests_program([block.content for block in after])
    before = [block for block in found if block.start < start]
    return ParsedResponse(_trimmed(text[:start]), _code(text[:start], before, program), program)


def _split(text: str, found: Sequence[Block]) -> tuple[int | None, list[Block]]:
    """Return where the tests begin and their Python blocks, or None if they are not apart from the answer."""
    for heading in _HEADING.finditer(text):
        if any(block.start <= heading.start() < block.end for block in found):
            continue
        before = python_blocks([block for block in found if block.end <= heading.start()])
        after = python_blocks([block for block in found if block.start >= heading.end()])
        if before and after:
            return heading.start(), after
    code = python_blocks(found)
    if len(code) > 1 and not text[code[-1].end :].strip() and _asserts(code[-1].content):
        return code[-1].start, [code[-1]]
    return None, []


def _code(text: str, found: Sequence[Block], tests: str) -> str:
    code = python_blocks(found)
    if code:
        return assembly.program([block.content for block in code], tests)
    return text if not found and _is_program(text) else ""


def _tests(text: str) -> str:
    found = python_blocks(blocks(text))
    return assembly.tests_program([block.content for block in found]) if found else text


def _asserts(code: str) -> bool:
    tree = _parsed(code)
    return tree is not None and any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def _is_program(text: str) -> bool:
    tree = _parsed(text)
    return tree is not None and any(isinstance(node, _PROGRAM) for node in tree.body)


def _parsed(code: str) -> ast.Module | None:
    try:
        with without_warnings():
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _trimmed(text: str) -> str:
    return text.rstrip().lstrip("\r\n")
