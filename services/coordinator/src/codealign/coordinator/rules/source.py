"""Python source as text: removal of comments and docstrings, and the names it defines.

Everything here works on tokens without recursion, so even a sum of 5,000 terms is handled. Source that Python cannot
read is returned unchanged.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from dataclasses import dataclass
from itertools import pairwise

_LAYOUT = {tokenize.NEWLINE: "\n", tokenize.INDENT: "\1", tokenize.DEDENT: "\2"}
_SKIPPED = frozenset({tokenize.NL, tokenize.COMMENT, tokenize.ENCODING, tokenize.ENDMARKER})
_STARTS = frozenset({tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT})
_PLAIN_STRING = re.compile(r"(\"\"\"|'''|\"|')([^\"'\\]*)\1")
_SPACE = re.compile(r"\s+")
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Errors that Python's parser raises for source that it cannot read."""


@dataclass(frozen=True)
class Source:
    """The parts of a piece of source that are compared."""

    bare: str
    """The source without comments and docstrings."""
    key: str
    """Key that is equal for sources that differ only in layout, quotes, comments, docstrings and the names of their
    module-level definitions."""
    functions: frozenset[str] = frozenset()
    """Names of all functions and methods."""
    classes: frozenset[str] = frozenset()


def bare_source(code: str) -> str:
    """Return the code without comments and docstrings."""
    return read(code).bare


def read(code: str) -> Source:
    """Read a piece of source. If it cannot be tokenized, it is compared as written, except for white space."""
    text = code.replace("\r\n", "\n").replace("\r", "\n")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (*_UNREADABLE, tokenize.TokenError):
        return Source(code, _SPACE.sub(" ", code).strip())
    statements = _string_statements(tokens)
    cut = {number for number, token in enumerate(tokens) if token.type == tokenize.COMMENT} | statements
    bare = _without(text, [tokens[number] for number in sorted(cut)])
    kept = [token for number, token in enumerate(tokens) if number not in cut and token.type not in _SKIPPED]
    functions, classes, outermost = _defined(kept)
    return Source(bare, _key(kept, outermost), functions, classes)


def _string_statements(tokens: list[tokenize.TokenInfo]) -> set[int]:
    """Return the token indices of statements that are only a string: docstrings and strings used as comments."""
    found: set[int] = set()
    run: list[int] = []  # strings where a statement can begin
    first, begins = "", True
    for number, token in enumerate(tokens):
        if token.type in (tokenize.NL, tokenize.COMMENT, tokenize.ENCODING):
            continue
        if token.type == tokenize.STRING and (begins or run):
            run.append(number)
            begins = False
            continue
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) or token.string == ";":
            found.update(run)
        run = []
        if token.type in _STARTS:
            first, begins = "", True
            continue
        first = first or token.string
        # `def f(x): "Doc."; return x`, but not `x: "int"`
        begins = token.string == ";" or (token.string == ":" and first in ("def", "class", "async"))
    return found


def _without(text: str, tokens: list[tokenize.TokenInfo]) -> str:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    parts, at = [], 0
    for token in tokens:
        parts.append(text[at : starts[token.start[0] - 1] + token.start[1]])
        at = starts[token.end[0] - 1] + token.end[1]
    lines = "".join([*parts, text[at:]]).split("\n")
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _defined(tokens: list[tokenize.TokenInfo]) -> tuple[frozenset[str], frozenset[str], list[str]]:
    """Return the names of functions, of classes, and of both at module level in order."""
    functions: set[str] = set()
    classes: set[str] = set()
    outermost: list[str] = []
    depth = 0
    for token, after in pairwise(tokens):
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type == tokenize.NAME and token.string in ("def", "class") and after.type == tokenize.NAME:
            (functions if token.string == "def" else classes).add(after.string)
            if depth == 0:
                outermost.append(after.string)
    return frozenset(functions), frozenset(classes), list(dict.fromkeys(outermost))


def _key(tokens: list[tokenize.TokenInfo], outermost: list[str]) -> str:
    numbers = {name: f"\3{number}" for number, name in enumerate(outermost)}
    parts: list[str] = []
    for token in tokens:
        part = _LAYOUT.get(token.type, token.string)
        if token.type == tokenize.NAME and not keyword.iskeyword(part) and (not parts or parts[-1] != "."):
            part = numbers.get(part, part)
        elif token.type == tokenize.STRING and (plain := _PLAIN_STRING.fullmatch(part)):
            part = f'"{plain[2]}"'
        elif part == ";":
            part = "\n"
        if part == "\n" and (not parts or parts[-1] in ("\n", "\1", "\2")):
            continue  # left over from a string statement
        parts.append(part)
    return " ".join(parts)
