"""Text that people and models wrote."""

from __future__ import annotations

import re

_LINE = re.compile(r"[^\n\r]*(?:\r\n|\n|\r)|[^\n\r]+")


def lines(text: str, *, keepends: bool = False) -> list[str]:
    r"""The lines of a text as Python counts them in source code: they end at \n, \r\n or \r.

    `str.splitlines` also splits at form feeds, separators and other characters that may stand inside a string literal
    or a comment. A line number of Python's is an index of this list, plus one.

    Args:
        text: Any text.
        keepends: Keep each line's ending: joined, the lines are the text.
    """
    found = _LINE.findall(text)
    return found if keepends else [line.rstrip("\r\n") for line in found]
