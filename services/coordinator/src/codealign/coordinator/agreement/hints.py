"""Values at which attempts may differ: what their code, their tests and the instruction compare with.

A wrong answer is most often wrong at a boundary: `<= 5` for `< 5`. The boundary is written somewhere: in a comparison
of some attempt, in a test's expectation, or in the instruction ("less than 5", "at most three").
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from codealign.coordinator.agreement.calls import MAX_CHARS
from codealign.coordinator.reading.python_code import BOM, parsed

MAX_NUMBERS = 12
"""Numbers kept, the most telling ones."""
MAX_TEXTS = 12
"""Texts kept."""
_MAX_NODES = 20_000
"""Nodes looked at of one text."""
_MAX_TEXT = 30
"""Characters of a text that is kept."""
_LARGEST = 1e12
_COMPARED, _SAID, _WRITTEN = 4, 3, 1
"""Weights of a value that is compared with, that the instruction says, and that occurs in code at all."""
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,13}(?:\.\d{1,9})?(?![\w.]*[A-Za-z_])")
_QUOTED = re.compile(r"\"([^\"\n]{1,30})\"|(?<!\w)'([^'\n]{1,30})'(?!\w)")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_WORD = re.compile(rf"\b(?ai:{'|'.join(_WORDS[2:])})\b")
"""In ASCII, since "ſ" and "ı" are the letters s and i to a pattern that ignores case, but not to `str.lower`."""
_NO_NEGATIVE = re.compile(r"\b(?:non-?negative|positive|natural)\b", re.IGNORECASE)
_METHODS = frozenset({"startswith", "endswith", "split", "strip", "replace", "count", "find", "index", "join", "get"})
_T = TypeVar("_T", bound=Hashable)


@dataclass(frozen=True)
class Hints:
    """Values to try."""

    numbers: tuple[int | float, ...] = ()
    """The most telling first."""
    texts: tuple[str, ...] = ()
    """The most telling first."""
    negative: bool = True
    """Whether negative numbers may be meant. The instruction may exclude them."""


def find(codes: Iterable[str], tests: Iterable[str], instruction: str = "") -> Hints:
    """Collect the values of all attempts at an instruction.

    Args:
        codes: Code of the attempts.
        tests: Tests of the attempts.
        instruction: The instruction's text.
    """
    numbers, texts = Counter[int | float](), Counter[str]()
    said = instruction[:MAX_CHARS]
    _count(numbers, texts, _of_text(said), _SAID)
    for code in codes:
        tree = _tree(code)
        _count(numbers, texts, _compared(tree), _COMPARED)
        _count(numbers, texts, _written(tree), _WRITTEN)
    for each in tests:
        _count(numbers, texts, _compared(_tree(each)), _WRITTEN)
    return Hints(_first(numbers, MAX_NUMBERS), _first(texts, MAX_TEXTS), not _NO_NEGATIVE.search(said))


def _tree(code: str) -> ast.Module:
    tree = parsed(code.removeprefix(BOM)) if len(code) <= MAX_CHARS else None
    return tree or ast.Module(body=[], type_ignores=[])


def _count(numbers: Counter[int | float], texts: Counter[str], found: Iterable[object], weight: int) -> None:
    """Count each value once, since an attempt that repeats one is still one attempt."""
    for value in dict.fromkeys((type(each), each) for each in found if isinstance(each, Hashable)):
        each = value[1]
        if isinstance(each, str):
            texts[each] += weight * (0 < len(each) <= _MAX_TEXT)
        elif isinstance(each, int | float) and not isinstance(each, bool) and abs(each) <= _LARGEST:
            numbers[int(each) if isinstance(each, float) and each.is_integer() else each] += weight


def _first(counts: Counter[_T], limit: int) -> tuple[_T, ...]:
    """Return the values with most weight; of equal ones, those that were found first."""
    return tuple(value for value, count in counts.most_common(limit) if count > 0)


def _of_text(instruction: str) -> Iterator[object]:
    for found in _NUMBER.findall(instruction):
        yield float(found) if "." in found else int(found)
    for word in _WORD.findall(instruction):
        yield _WORDS.index(word.lower())
    for double, single in _QUOTED.findall(instruction):
        yield double or single


def _compared(tree: ast.Module) -> Iterator[object]:
    """Yield the constants that comparisons compare with, and the items of containers there."""
    for node in _nodes(tree):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                yield from _constants(side)
        elif isinstance(node, ast.MatchValue):
            yield from _constants(node.value)


def _constants(node: ast.expr) -> Iterator[object]:
    items: Sequence[ast.expr] = node.elts[:MAX_TEXTS] if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node]
    for item in items:
        if isinstance(item, ast.UnaryOp) and isinstance(item.op, ast.USub) and isinstance(item.operand, ast.Constant):
            if isinstance(value := item.operand.value, int | float):
                yield -value
        elif isinstance(item, ast.Constant):
            yield item.value


def _written(tree: ast.Module) -> Iterator[object]:
    """Yield the numbers that occur anywhere, and the texts that methods of texts are called with."""
    for node in _nodes(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            yield from (value for each in node.args for value in _constants(each) if isinstance(value, str))


def _nodes(tree: ast.Module) -> Iterator[ast.AST]:
    return islice(ast.walk(tree), _MAX_NODES)
