"""Extraction of the part of a model's text that parses as Python.

Lines are split as Python does: only at a line feed, a carriage return, or both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence

from codealign.common.foreign_python import without_warnings
from codealign.common.text import lines as text_lines

_END_MARK = re.compile(r"<[|｜/]|<(?:s|eos|bos|pad|unk|EOT|end_of_turn|start_of_turn)>|\[/?INST\]|```")
"""Start of a marker that a tokenizer, a chat template or a fence puts after an answer. None is valid Python outside a
string."""
_CODE = re.compile(r"(?:def|async\s+def|class|import|from)\s|@[A-Za-z_]|[A-Za-z_]\w*\s*(?::[^=]*)?=[^=]")
"""Start of a line where code may resume after prose."""
_ATTEMPTS = 200
"""Maximum number of parse attempts per text; each removes one error."""
_ATTEMPT_CHARS = 5_000
"""An attempt counts once more for each such number of characters, which bounds the total work."""
_MARKS = 8
"""Maximum number of end markers tried per line."""


def parse(text: str) -> ast.Module:
    """Parse a program, without emitting warnings about its content.

    Raises:
        SyntaxError: The text is not a valid program.
        ValueError: The text has characters that are not allowed in a program.
        RecursionError: The program is nested too deeply.
        MemoryError: The program is nested too deeply.
    """
    with without_warnings():
        return ast.parse(text.removeprefix("\ufeff"))


class Reader:
    """Reads one text, with a limited number of attempts.

    Args:
        holds: Returns whether a part contains the wanted code.
    """

    def __init__(self, holds: Callable[[ast.Module], bool]) -> None:
        self._holds = holds
        self._left = _ATTEMPTS

    def program(self, text: str) -> list[str]:
        """Return the lines of the longest prefix that parses.

        If the prefix does not contain the wanted code, also searches the rest for code that resumes after prose, up to
        the first part that contains it. Returns an empty list if no prefix parses and no such part is found.
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
        """Return the longest prefix that parses; its last line may be cut at an end marker."""
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
        """Return the lines with the last one cut at an end marker, or None if that does not make them parse."""
        *before, last = lines
        for mark in list(_END_MARK.finditer(last))[:_MARKS]:
            cut = [*before, f"{last[: mark.start()].rstrip()}\n"] if last[: mark.start()].strip() else before
            try:
                return cut, parse("".join(cut))
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
        return None


def _line_of_null(lines: Sequence[str]) -> int:
    """Return the number of the first line with a character not allowed in programs, or of the last line if none."""
    for number, line in enumerate(lines, 1):
        if "\0" in line or any("\ud800" <= character <= "\udfff" for character in line):
            return number
    return len(lines)


def _last_margin(lines: Sequence[str]) -> int:
    """Return the number of lines before the last unindented one."""
    return next((number for number in range(len(lines) - 1, 0, -1) if not lines[number][:1].isspace()), 0)


def _ended(lines: list[str]) -> list[str]:
    return [*lines[:-1], f"{lines[-1]}\n"] if lines and not lines[-1].endswith(("\r", "\n")) else lines
