"""The terms of a generated list: one line separated by commas, one term per line, or a list as in JSON or Python.

Only what surrounds a term is removed: one list marker followed by white space, quotes or emphasis around the whole
term, and a final period. No other character is removed: "2D arrays", "**kwargs", ".env files" and "C++" are terms.
What is a marker only among others ("a)", "iv.", "[2]", ">") is removed if every line begins with one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from codealign.common.foreign_python import without_warnings

_SEPARATORS = ",;，；、\r\n"
_BULLET = r"[-*+•–—‣▪·◦●○■]"
_MARKER = re.compile(rf"(?:{_BULLET}(?:\s+\[[ xX]\])?|\(?\d{{1,3}}\\?[.)])\s+(?=\S)")
_ROW = re.compile(
    rf"(?:{_BULLET}|>|\(?(?:\d{{1,3}}|[a-z]|[ivx]{{1,5}})\\?[.):]|\[\d{{1,3}}\]|#\d{{1,3}}[.):]?)\s+(?=\S)"
    r"|\d{1,3}[.)](?=[^\W\d_]{2})",
    re.IGNORECASE,
)
"""A marker of a list of one term per line. Most of these begin a term where not every line has one."""
_HEADING = re.compile(r"[\w *#]*\b(?:concepts|terms|topics)\b[ *]*:[ *]*", re.IGNORECASE)
"""What announces the list."""
_NO_TERM = re.compile(r"[-*+•–]|\(?\d{1,3}[.)]|[.…]+|[`\"'“”‘’]+")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:[^\W\d]{1,2}\.){2,}$|\.\.$")
"""Terms that end with their own period: "Ph.D.", "e.g.", "..."."""
_AROUND = (("**", "**"), ("*", "*"), ("``", "``"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"))
_OPENING, _CLOSING = "([{", ")]}"


def terms_of(text: str) -> list[str]:
    """Return the distinct terms in order, ignoring case."""
    found: dict[str, str] = {}
    for part, marked in _parts(text):
        term = _bare(part, marked=marked)
        if term:
            found.setdefault(term.lower(), term)
    return list(found.values())


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the text between unenclosed separators, and whether its marker belongs to a list."""
    if (listed := _literal(text)) is not None:
        yield from ((each, False) for each in listed)
        return
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    if lines and (heading := _HEADING.match(lines[0])):
        lines[0] = lines[0][heading.end() :]
    rows = [line for line in lines if line]
    markers = [marker for row in rows if (marker := _ROW.match(row))]
    if 1 < len(rows) == len(markers):
        rows = [row if _MARKER.match(row) else row[marker.end() :] for row, marker in zip(rows, markers, strict=True)]
    for row in rows:
        parts = _parts_of_line(row)
        # In "+ operator, - operator" and "sorting, - operator" the signs belong to the terms.
        markers_of_parts = [marker.group().strip() for part in parts if (marker := _MARKER.match(part.strip()))]
        signs = {marker for marker in markers_of_parts if not any(map(str.isdigit, marker))}
        for part in parts:
            yield part, not signs or (len(signs) == 1 and bool(_MARKER.match(parts[0].strip())))


def _literal(text: str) -> list[str] | None:
    """Return the items of a list of strings as JSON and Python write it, or None if the text is none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        with without_warnings():
            found = ast.literal_eval(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


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
        # An unclosed bracket or backtick protects nothing.
        return re.split(r"[,;]", line)
    return [*parts, line[start:]]


def _bare(part: str, *, marked: bool) -> str:
    term = part.strip()
    if _NO_TERM.fullmatch(term):
        return ""
    marker = _MARKER.match(term) if marked else None
    term = _without_stop(term[marker.end() :] if marker else term)
    for opening, closing in _AROUND:
        inside = term[len(opening) : -len(closing)]
        whole = term.startswith(opening) and term.endswith(closing) and len(term) > len(opening + closing)
        if whole and opening not in inside and closing not in inside and inside == inside.strip():
            term = _without_stop(inside)
    return term


def _without_stop(term: str) -> str:
    """Return the term without its final period, unless it belongs to an abbreviation."""
    return term[:-1].rstrip() if term.endswith(".") and not _ABBREVIATION.search(term) else term
