"""Helpers for text written by people and models."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

# Characters that YAML cannot contain or treats as line ends. JSON escapes those below a space itself.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_LINE = re.compile(r"[^\n\r]*(?:\r\n|\n|\r)|[^\n\r]+")


def lines(text: str, *, keepends: bool = False) -> list[str]:
    r"""Return the lines of a text as Python counts them in source code: they end at \n, \r\n or \r.

    `str.splitlines` also splits at form feeds, separators and other characters that may occur inside a string literal
    or a comment. A line number in Python is an index into this list, plus one.

    Args:
        text: Any text.
        keepends: Whether to keep line ends, so that the joined lines equal the text.
    """
    found = _LINE.findall(text)
    return found if keepends else [line.rstrip("\r\n") for line in found]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message for an unknown name: it suggests the nearest known name and lists all.

    Args:
        what: What the name is for, such as "pipeline".
        name: The unknown name.
        known: The valid names.
    """
    valid = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name.lower(), valid, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}{meant or ';'} known: {', '.join(valid) or 'none'}"


def encodable(text: str) -> str:
    """Escape lone surrogates, which no message can contain but an exception's text may."""
    return text.encode("utf-8", "backslashreplace").decode()


def yaml_quoted(text: str) -> str:
    """Return the text as a double-quoted YAML string on one line, keeping readable characters."""
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
