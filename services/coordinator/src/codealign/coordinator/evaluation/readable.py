"""The part of a model's text that Python can read.

Lines are Python's own: they end with a line feed, a carriage return, or both, and with nothing else.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence

from codealign.common.foreign_python import without_warnings
from codealign.common.text import lines as text_lines

_END_MARK = re.compile(r"<[|｜/]|<(?:s|eos|bos|pad|unk|EOT|end_of_turn|start_of_turn)>|\[/?INST\]|```")
"""Begins what a tokenizer, a chat template or a fence puts after an answer. None of it is Python outside a string."""
_CODE = re.compile(r"(?:def|async\s+def|class|import|from)\s|@[A-Za-z_]|[A-Za-z_]\w*\s*(?::[^=]*)?=[^=]")
"""How a line begins at which code may go on after prose."""
_ATTEMPTS = 200
"""At reading one text; each leaves out one fault."""
_ATTEMPT_CHARS = 5_000
"""A longer text's attempts count as several, so that the work is limited."""
_MARKS = 8
"""That are tried in one line."""


def parse(text: str) -> ast.Module:
    """The tree of a program, without warnings about what is in it.

    Raises:
        SyntaxError: It is no program.
        ValueError: It has characters that no program has.
        RecursionError: It is nested too deeply.
        MemoryError: The same.
    """
    with without_warnings():
        return ast.parse(text.removeprefix("\ufeff"))


class Reader:
    """Reads one text, with a limited number of attempts."""

    def __init__(self, holds: Callable[[ast.Module], bool]) -> None:
        """Reads nothing yet.

        Args:
            holds: Whether a part has what is wanted.
        """
        self._holds = holds
        self._left = _ATTEMPTS

    def program(self, text: str) -> list[str]:
        """The lines of the longest beginning that parses.

        Where that does not hold what is wanted, what follows is searched for code that goes on after prose, up to the
        first part that does. Nothing: no beginning parses, and no such part was found.
        """
        lines = text_lines(text, keepends=True)
        beginning, tree = self._beginning(lines)
        pieces, rest, found = list(beginning), lines[len(beginning) :], tree
        while found is None or not self._holds(found):
            start = next((number for number, line in enumerate(rest) if number and _CODE.match(line)), None)
            if start is None or self._left <= 0:
                return beginning
            rest = rest[start:]
            piece, found = self._beginning(rest)
            pieces += _ended(piece)
            rest = rest[max(len(piece) - 1, 0) :]
        return pieces

    def _beginning(self, lines: Sequence[str]) -> tuple[list[str], ast.Module | None]:
        """The longest beginning that parses; its last line may be cut at the mark of an end."""
        kept = list(lines)
        while kept and self._left > 0:
            self._left -= 1 + sum(map(len, kept)) // _ATTEMPT_CHARS
            try:
                return kept, parse("".join(kept))
            except SyntaxError as error:
                wrong = min(error.lineno or _line_of_null(kept), len(kept))
                if (cut := self._cut_at_mark(kept[:wrong])) is not None:
                    return cut
                kept = kept[: wrong - 1]
            except ValueError:
                kept = kept[: _line_of_null(kept) - 1]
            except (RecursionError, MemoryError):
                kept = kept[: _last_margin(kept)]
        return [], None

    def _cut_at_mark(self, lines: list[str]) -> tuple[list[str], ast.Module] | None:
        """The lines, the last one cut, where a mark in it is what does not parse."""
        *before, last = lines
        for mark in list(_END_MARK.finditer(last))[:_MARKS]:
            cut = [*before, f"{last[: mark.start()].rstrip()}\n"] if last[: mark.start()].strip() else before
            try:
                return cut, parse("".join(cut))
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
        return None


def _line_of_null(lines: Sequence[str]) -> int:
    """The number of the first line that has a character which no program has; the last one where none has."""
    for number, line in enumerate(lines, 1):
        if "\0" in line or any("\ud800" <= character <= "\udfff" for character in line):
            return number
    return len(lines)


def _last_margin(lines: Sequence[str]) -> int:
    """Lines before the last one that begins at the margin."""
    return next((number for number in range(len(lines) - 1, 0, -1) if not lines[number][:1].isspace()), 0)


def _ended(lines: list[str]) -> list[str]:
    return [*lines[:-1], f"{lines[-1]}\n"] if lines and not lines[-1].endswith(("\r", "\n")) else lines
