"""The terms of a list that a model wrote: one line separated by commas, or one term on each line.

Of a term only what surrounds it is taken away: one list marker that white space follows, quotes or emphasis around the
whole of it, and a final full stop. No character is taken for its own sake: "2D arrays", "**kwargs", ".env files" and
"C++" are terms.
"""

from __future__ import annotations

import re

_SEPARATORS = ",;\r\n"
_MARKER = re.compile(r"(?:[-*+•–]|\(?\d{1,3}[.)])\s+(?=\S)")
_NO_TERM = re.compile(r"[-*+•–]|\(?\d{1,3}[.)]|[.…]+|[`\"'“”‘’]+")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:[^\W\d]{1,2}\.){2,}$|\.\.$")
"""Ends with a full stop of its own: "Ph.D.", "e.g.", "..."."""
_AROUND = (("**", "**"), ("*", "*"), ("``", "``"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"))
_OPENING, _CLOSING = "([{", ")]}"


def terms_of(text: str) -> list[str]:
    """The terms in order, each once; upper and lower case are the same."""
    found: dict[str, str] = {}
    for part in _parts(text):
        term = _bare(part)
        if term:
            found.setdefault(term.lower(), term)
    return list(found.values())


def _parts(text: str) -> list[str]:
    """The text between separators. Those inside brackets or backticks separate nothing."""
    return [part for line in re.split(r"[\r\n]", text) for part in _parts_of_line(line)]


def _parts_of_line(line: str) -> list[str]:
    parts, start, depth, quoted = [], 0, 0, False
    for position, character in enumerate(line):
        if character == "`":
            quoted = not quoted
        elif quoted:
            continue
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth = max(0, depth - 1)
        elif character in _SEPARATORS and not depth:
            parts.append(line[start:position])
            start = position + 1
    if quoted or depth:
        # What is never closed encloses nothing.
        return re.split(r"[,;]", line)
    return [*parts, line[start:]]


def _bare(part: str) -> str:
    term = part.strip()
    if _NO_TERM.fullmatch(term):
        return ""
    marker = _MARKER.match(term)
    term = _without_stop(term[marker.end() :] if marker else term)
    for opening, closing in _AROUND:
        inside = term[len(opening) : -len(closing)]
        whole = term.startswith(opening) and term.endswith(closing) and len(term) > len(opening + closing)
        if whole and opening not in inside and closing not in inside and inside == inside.strip():
            term = _without_stop(inside)
    return term


def _without_stop(term: str) -> str:
    """The term without its final full stop, unless that belongs to an abbreviation."""
    return term[:-1].rstrip() if term.endswith(".") and not _ABBREVIATION.search(term) else term
