"""Untrusted texts and code as HTML: escaped, highlighted, and folded if long."""

from __future__ import annotations

import builtins
import io
import keyword
import re
import tokenize
from collections.abc import Iterator

from markupsafe import Markup, escape

from codealign.cli.report.wording import visible

SHOWN_LINES = 18
"""Lines of a longer text that are shown above the fold."""
_UNFOLDED_LINES = 24
_UNFOLDED_CHARACTERS = 2_400
_MAX_COLOURED = 40_000
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_NAMES = frozenset(dir(builtins))


def code(text: str, label: str) -> Markup:
    """Return Python source as HTML, folded if long.

    Args:
        text: Untrusted source that need not compile.
        label: Description for screen readers.
    """
    return _folded(_coloured_lines(visible(text).strip("\n")), label)


def plain(text: str, label: str) -> Markup:
    """Return any text as HTML with its line breaks, folded if long."""
    return _folded([escape(line) for line in visible(text).strip("\n").split("\n")], label, css="wrapped")


def markdown(text: str, label: str) -> Markup:
    """Return a model's prose as HTML: paragraphs, inline code and fenced code. Other Markdown is not interpreted."""
    parts = []
    clean = visible(text).strip()
    last = 0
    for number, match in enumerate(_FENCE.finditer(clean), start=1):
        # Regions of one page need names of their own.
        parts.append(_prose(clean[last : match.start()], f"{label}, text {number}"))
        parts.append(code(match.group(1), f"{label}, code {number}" if number > 1 else label))
        last = match.end()
    parts.append(_prose(clean[last:], f"{label}, the rest" if last else label))
    return Markup("").join(part for part in parts if part)


def _prose(text: str, label: str) -> Markup:
    text = text.strip()
    if len(text) > _UNFOLDED_CHARACTERS:
        return plain(text, label)
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
    return Markup("").join(Markup("<p>{}</p>").format(_inline(paragraph)) for paragraph in paragraphs)


def _inline(text: str) -> Markup:
    pieces = _INLINE.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece) for index, piece in enumerate(pieces)
    )


def _folded(lines: list[Markup], label: str, css: str = "code") -> Markup:
    characters = sum(len(line) for line in lines)
    if len(lines) <= _UNFOLDED_LINES and (css == "code" or characters <= _UNFOLDED_CHARACTERS):
        return _pre(lines, label, css)
    if len(lines) <= SHOWN_LINES:
        summary = Markup("<summary>{:,} characters</summary>").format(characters)
        return Markup('<details class="whole">{}{}</details>').format(summary, _pre(lines, label, css))
    rest = lines[SHOWN_LINES:]
    return Markup('<div class="folded">{}<details><summary>{:,} more lines</summary>{}</details></div>').format(
        _pre(lines[:SHOWN_LINES], label, css), len(rest), _pre(rest, f"{label}, continued", css)
    )


def _pre(lines: list[Markup], label: str, css: str) -> Markup:
    # Focusable, so that it can be scrolled with the keyboard.
    return Markup('<pre class="{}" tabindex="0" role="region" aria-label="{}"><code>{}</code></pre>').format(
        css, label, Markup("\n").join(lines)
    )


def _coloured_lines(text: str) -> list[Markup]:
    """Return the lines of Python source with comments, strings and keywords marked, as far as it parses."""
    lines = text.split("\n")
    plain_lines = [escape(line) for line in lines]
    if len(text) > _MAX_COLOURED:
        return plain_lines
    marks: dict[int, list[tuple[int, int, str]]] = {}
    try:
        for css, (row, start), (end_row, end) in _tokens(text):
            for line in range(row, end_row + 1):
                first = start if line == row else 0
                last = end if line == end_row else len(lines[line - 1])
                marks.setdefault(line - 1, []).append((first, last, css))
    except (tokenize.TokenError, SyntaxError, RecursionError, ValueError):
        pass  # the lines up to the error are highlighted
    return [_marked(line, marks.get(index, ())) for index, line in enumerate(lines)]


def _marked(line: str, marks: list[tuple[int, int, str]] | tuple[()]) -> Markup:
    parts, last = [], 0
    for first, end, css in marks:
        parts += [escape(line[last:first]), Markup('<span class="{}">{}</span>').format(css, line[first:end])]
        last = end
    return Markup("").join([*parts, escape(line[last:])])


def _tokens(text: str) -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        css = _colour(token)
        if css:
            yield css, token.start, token.end


def _colour(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.COMMENT:
        return "comment"
    if token.type == tokenize.NAME:
        return "keyword" if keyword.iskeyword(token.string) else "builtin" if token.string in _NAMES else ""
    name = tokenize.tok_name[token.type]
    return "string" if name == "STRING" or name.startswith("FSTRING") else ""
