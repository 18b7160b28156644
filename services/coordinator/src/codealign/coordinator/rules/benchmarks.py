"""Benchmark texts that must not occur in a seed or a row (decontamination).

The files are the user's copies: JSON lines, plain or gzipped, as published for HumanEval, HumanEval+, MBPP and MBPP+.
These parts of each task are used:

- its description: the docstring of HumanEval's and EvalPlus' prompts, MBPP's `text` or `prompt`; as a whole, without
  examples, without "Write a function to", and each longer paragraph and sentence separately;
- its solution: as published, without docstrings and comments, each function, and the body without its signature.

Both sides are compared in a normal form, short code also by its operators (see `matching`).
"""

from __future__ import annotations

import ast
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.coordinator.reading.python_code import parsed
from codealign.coordinator.rules.matching import BenchmarkTexts, Text
from codealign.coordinator.rules.source import bare_source

__all__ = ["BenchmarkTexts", "load"]

MIN_TEXT = 16
"""Minimum normal-form characters of a description, or of a function with its signature.

The shortest in HumanEval and MBPP are "Add two numbers x and y" (18) and `def find(n,m): return n // m` (17). Neither
occurs in 118,000 functions of the standard library and installed packages, docstrings included.
"""
MIN_BODY = 20
"""Minimum characters of a function's body without its signature.

Shorter ones occur in unrelated code: `return x + y` (8) in 133 of those functions, `return len(string)` (15) in two,
Euclid's algorithm (18) in one. None with 20 or more characters does.
"""
MIN_FORMULA = 24
"""Minimum characters, operators included, for a shorter body to count: `return int(2*n*(n+1)*(2*n+1)/3)`."""
MIN_PART = 60
"""Minimum characters for a paragraph or sentence to count separately: a dozen words, which cannot be a coincidence."""
MIN_TASK = 40
"""Minimum characters for a description to count without its "Write a function to"."""

_DESCRIPTIONS = ("prompt", "text")
_SOLUTIONS = ("canonical_solution", "code")
_EXAMPLES = re.compile(
    r">>>"
    r"|^[ \t]*(?:assert\b|(?:in|out)puts?[ \t]*:)"
    r"|^[ \t]*(?:\W{0,3})(?:for[ \t]+)?(?:examples?|e\.g\.|note|constraints?)\b[^\n]{0,12}$"
    r"|^[ \t]*(?:for[ \t]+)?(?:examples?|e\.g\.)"
    r"|\bfor[ \t]+example\b"
    r"|\bexamples?[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_LEAD = re.compile(
    r"^\W*(?:please\s+)?(?:write|create|implement)\s+an?\s+(?:python\s+)?(?:function|program|code)\s+"
    r"(?:(?:to|that|which|for)\s+)?(?:python\s+)?",
    re.IGNORECASE,
)


def load(path: Path | None) -> BenchmarkTexts:
    """Read a file, or every .jsonl and .jsonl.gz file in a directory.

    Raises:
        ConfigurationError: Names the file and line that cannot be read.
    """
    if path is None:
        return BenchmarkTexts()
    if not path.exists():
        raise ConfigurationError(f"benchmarks: {path} does not exist; give a .jsonl(.gz) file or a directory of them")
    files = (
        sorted(item for item in path.iterdir() if item.name.endswith((".jsonl", ".jsonl.gz")))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise ConfigurationError(f"benchmarks: no .jsonl or .jsonl.gz file in {path}")
    return BenchmarkTexts.of(text for file in files for text in _texts(file))


def _texts(file: Path) -> Iterator[Text]:
    number = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _of_row(json.loads(line), file.name, number)
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"benchmarks: {file}, line {number}: cannot be read ({error})") from None


def _of_row(row: dict[str, object], file: str, number: int) -> Iterator[Text]:
    task = row.get("task_id", number)
    task = task if isinstance(task, str) else f"{file}, task {task}"  # MBPP's ids are numbers
    prompts = [value for field in _DESCRIPTIONS if isinstance(value := row.get(field), str)]
    solutions = [value for field in _SOLUTIONS if isinstance(value := row.get(field), str)]
    for prompt in prompts:
        yield from _of_description(prompt, task)
    for solution in solutions:
        yield from _of_solution(solution, [signature for prompt in prompts for signature in _signatures(prompt)], task)


def _of_description(prompt: str, task: str) -> Iterator[Text]:
    tree = parsed(prompt) or parsed(prompt + "\n    pass\n")  # HumanEval's prompts end after the docstring
    quoted = [] if tree is None else [text for node in ast.walk(tree) if (text := _bare_string(node))]
    for text in [prompt, *quoted]:
        parts = _EXAMPLES.split(text)
        candidates = [(text, MIN_TEXT)]
        if tree is None or text is not prompt:  # prose, not the code around it
            candidates.append((parts[0], MIN_TEXT))
            candidates.append((_LEAD.sub("", parts[0]), MIN_TASK))
            paragraphs = [paragraph for part in parts for paragraph in _PARAGRAPH.split(part)]
            candidates += [(paragraph, MIN_PART) for paragraph in paragraphs]
            candidates += [(one, MIN_PART) for paragraph in paragraphs for one in _SENTENCE.split(paragraph)]
        for candidate, minimum in candidates:
            found = Text.prose(candidate, task)
            if len(found.normal) >= minimum:
                yield found


def _bare_string(node: ast.AST) -> str:
    """Return a string that is a statement: a docstring, or one placed a line too late to be one."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _of_solution(solution: str, signatures: list[str], task: str) -> Iterator[Text]:
    bare = bare_source(solution)
    tree = parsed(solution)
    whole = tree is not None and any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
    functions, bodies = [], []
    if whole:
        functions += [solution, bare]
    else:  # HumanEval's: what follows the prompt
        bodies += [solution, bare]
        functions += [f"{signature}\n{text}" for signature in signatures for text in (solution, bare)]
    for function, body in _functions(bare):
        functions.append(function)
        bodies.append(body)
    for text in (Text.code(function, task) for function in functions):
        if len(text.normal) >= MIN_TEXT:
            yield text
    for text in (Text.code(body, task) for body in bodies):
        if len(text.normal) >= MIN_BODY or len(text.operators) >= MIN_FORMULA:
            yield text


def _functions(source: str) -> Iterator[tuple[str, str]]:
    """Yield each function at module level and its body."""
    tree = parsed(source)
    lines = source.split("\n")
    for node in tree.body if tree is not None else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            end = node.end_lineno
            yield "\n".join(lines[node.lineno - 1 : end]), "\n".join(lines[node.body[0].lineno - 1 : end])


def _signatures(prompt: str) -> list[str]:
    """Return the signature that a HumanEval prompt ends with."""
    tree = parsed(prompt) or parsed(prompt + "\n    pass\n")
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree is not None else []
    if not functions:
        return []
    last = functions[-1]
    return ["\n".join(prompt.split("\n")[last.lineno - 1 : last.body[0].lineno - 1])]
