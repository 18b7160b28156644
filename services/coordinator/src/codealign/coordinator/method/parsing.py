"""Reading what a model wrote. What cannot be read becomes a `Rejected` with one of the reasons in `REASONS`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

REASONS = {
    "cut-off": "the completion reached its token limit before its end",
    "cut-by-stop": "a stop string ended the completion before the text's end",
    "content-filter": "the endpoint's filter, or the model, refused to write this",
    "tool-call": "the model called a tool instead of writing text",
    "empty": "nothing, or next to nothing, came back",
    "no-concepts": "no list of one to ten short terms",
    "no-answer-end": "the answer is not closed by </answer>",
    "no-tests-section": "no <tests> section follows the answer",
    "no-code-block": "the answer holds no Python block",
    "no-tests-block": "the tests hold no Python block",
    "prompt-too-long": "the prompt does not fit the model's context",
    "prompt-refused": "inference refused the prompt for another reason than its length",
}

_BLOCK = re.compile(r"^[ \t]*```(?:python|py|Python)?[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_MAX_CONCEPTS = 10
_MAX_CONCEPT_CHARS = 60
_MIN_INSTRUCTION_WORDS = 5


@dataclass(frozen=True)
class Rejected:
    """A completion that could not be read."""

    reason: str
    detail: str


@dataclass(frozen=True)
class ParsedResponse:
    """A response, taken apart."""

    answer: str
    code: str
    tests: str


def concepts(text: str, *, cut_off: bool) -> list[str] | Rejected:
    """The terms of a seed → concepts completion, in order, each once."""
    if cut_off:
        return _rejected("cut-off")
    terms: dict[str, str] = {}
    for part in re.split(r"[,\n;]", text):
        term = part.strip().lstrip("-*•0123456789.) ").strip(" .`'\"")
        if term:
            terms.setdefault(term.lower(), term)
    if not terms:
        return _rejected("empty")
    longest = max(terms.values(), key=len)
    if len(terms) > _MAX_CONCEPTS or len(longest) > _MAX_CONCEPT_CHARS:
        return _rejected("no-concepts", f"{len(terms)} terms, the longest of {len(longest)} characters")
    return list(terms.values())


def instruction(text: str, *, cut_off: bool) -> str | Rejected:
    """The task of a concepts → instruction completion."""
    if cut_off:
        return _rejected("cut-off")
    task = text.strip()
    if len(task.split()) < _MIN_INSTRUCTION_WORDS:
        return _rejected("empty", f"{len(task.split())} words")
    return task


def response(text: str, *, cut_off: bool) -> ParsedResponse | Rejected:
    """The answer, its code and the tests of an instruction → response completion."""
    if cut_off:
        return _rejected("cut-off")
    if not text.strip():
        return _rejected("empty")
    answer, closed, rest = text.partition("</answer>")
    if not closed:
        return _rejected("no-answer-end")
    _, opened, tests_text = rest.partition("<tests>")
    if not opened:
        return _rejected("no-tests-section")
    code, tests = python_blocks(answer), python_blocks(tests_text)
    if not code:
        return _rejected("no-code-block")
    if not tests:
        return _rejected("no-tests-block")
    return ParsedResponse(answer.strip(), without_reading_main(code), tests)


def python_blocks(markdown: str) -> str:
    """The Python blocks of a text, joined by a blank line; unmarked blocks count as Python."""
    return "\n\n".join(match.group(1).rstrip() for match in _BLOCK.finditer(markdown) if match.group(1).strip())


def without_reading_main(code: str) -> str:
    """The code without its main guard where the guard's body reads input, which a test run has none of."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    lines = code.splitlines()
    for node in tree.body:
        if isinstance(node, ast.If) and _is_main_guard(node.test) and _reads_input(node):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(lines).rstrip()


def _is_main_guard(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and len(test.comparators) == 1
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == "__main__"
    )


def _reads_input(node: ast.AST) -> bool:
    return any(
        (isinstance(child, ast.Name) and child.id == "input")
        or (isinstance(child, ast.Attribute) and child.attr == "stdin")
        for child in ast.walk(node)
    )


def _rejected(reason: str, detail: str = "") -> Rejected:
    return Rejected(reason, detail or REASONS[reason])
