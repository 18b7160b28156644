"""Text that people and models wrote."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

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


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of the known ones: names the nearest of them, and all.

    Args:
        what: What it would be the name of: "pipeline".
        name: The name that was given.
        known: The valid names.
    """
    valid = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name.lower(), valid, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}{meant or ';'} known: {', '.join(valid) or 'none'}"


def encodable(text: str) -> str:
    """The text with lone surrogates escaped, which no message can hold: what an exception says may have some."""
    return text.encode("utf-8", "backslashreplace").decode()
