r"""Fenced code blocks of a Markdown text, found as CommonMark finds them and where models deviate from it.

A block opens with at least three backticks or tildes and ends at a line of as many of the same character. Its content
is what stands between, byte for byte: line endings and the one after the last line included. Removed are only the
opener's indent (as far as the code has it) and the marks of a block quote. Lines end at \n, \r\n and \r alone.

Deviations, each of which makes a block readable that CommonMark would lose or join with its neighbours:

- An opener may have any indent, and may follow list markers and quote marks, or text where it is marked as Python.
- In Python a fence line counts only outside string literals: a docstring may hold fences. Outside literals nothing
  that begins with three backticks is Python, so there any fence ends the block, also one that is shorter, indented,
  or at the end of the last line of code.
- A block without a closing fence ends at the next opener that is marked as Python, at a line with a tag of the
  prompts, or at the end of the text.
- A closing fence may be followed by such a tag on its line.
- A fence that is marked as Markdown and has fences inside is transparent.

The work is linear in the length of the text: whatever needs a second look at it is done `MAX_REPAIRS` times at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from codealign.common.text import lines
from codealign.coordinator.reading.python_code import compiles

MAX_REPAIRS = 32
"""Of one text: an answer needs none, or one or two. Beyond that blocks end where CommonMark says."""
UNMARKED, PYTHON = "", "python"
TAG = r"<[ \t]*(?:/[ \t]*)?(?:answer|tests?|task|concepts)[ \t]*>"
"""Tags of the prompts. No line of Python begins with one."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_END = r"(?:\r\n|\n|\r|\Z)"
_MARKER = r"(?:>|(?:[-*+•]|\(?\d{1,9}[.)])(?=[ \t`~]))"
_FENCE = r"(?:(?P<ticks>`{3,})(?P<info>[^`\n\r]*)|(?P<tildes>~{3,})(?P<words>[^\n\r]*))"
_OPENER = re.compile(rf"(?P<prefix>(?:[ \t]*{_MARKER})*[ \t]*){_FENCE}{_END}")
_OPENER_AFTER_TEXT = re.compile(rf"(?P<prefix>[^`\n\r]*[^` \t\n\r])[ \t]*(?P<ticks>`{{3,}})(?P<info>[^`\n\r]*){_END}")
_FENCE_LINE = re.compile(rf"[ \t>]*(?P<fence>`{{3,}}|~{{3,}})[ \t]*(?P<rest>{TAG}|[^\n\r]*)", re.IGNORECASE)
_TAG_LINE = re.compile(rf"[ \t>]*{TAG}", re.IGNORECASE)
_TOKEN = re.compile(
    rf"""
      \#[^\n\r]*+
    | (?P<literal>
        \"\"\"(?:[^"\\]++|\\[\s\S]|"(?!""))*+(?:\"\"\"|\\?\Z)
      | '''(?:[^'\\]++|\\[\s\S]|'(?!''))*+(?:'''|\\?\Z)
      | "(?:[^"\\\n\r]++|\\(?:\r\n|[\s\S]))*+(?:"|(?=[\n\r])|\\?\Z)
      | '(?:[^'\\\n\r]++|\\(?:\r\n|[\s\S]))*+(?:'|(?=[\n\r])|\\?\Z)
      )
    | (?P<stop>```|(?:^|(?<=[\n\r]))[ \t>]*(?:~~~|{TAG}))
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What of Python has to be known to see whether a fence stands in a string literal, and what may end a block."""
_LANGUAGE = re.compile(r"[\w+#-]+(?:\.\w+)*")
_PYTHON_NAME = re.compile(r"(?:lang(?:uage)?-)?(?:[ic]?python|pypy|pyw?)[-_]?(?:\d+(?:\.[\dx]+)*)?|.*\.pyw?")
_NO_LANGUAGE = frozenset({"code"})
_KEY = re.compile(r"\A(?:lang|language)\s*[=:]\s*[\"']?")
_MARKDOWN = frozenset({"markdown", "md", "mdx"})
_TAB = 4


@dataclass(frozen=True)
class Block:
    """A fenced block of a text."""

    language: str
    """The first word of the info string, in lower case: `PYTHON` for each of its names, `UNMARKED` where none is."""
    content: str
    start: int
    """Offset of the opener's line; where text precedes the opener on its line, of the fence."""
    end: int
    """Offset behind the closing fence."""
    closed: bool
    """By a fence, and not by whatever came next."""


@dataclass(frozen=True)
class _Opener:
    fence: str
    language: str
    indent: int
    """Columns that are taken from each line of the content."""
    quotes: int
    """Depth of the block quote that it stands in."""
    start: int
    body: int
    """Offset of the content."""


@dataclass(frozen=True)
class _End:
    content: int
    """Offset behind the content."""
    resume: int
    """Offset where the text goes on."""
    closed: bool


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order. Those without any content are among them."""
    return list(_Scanner(text).blocks())


def language_of(info: str) -> str:
    """The language that an info string names."""
    words = _KEY.sub("", info.strip().strip("\"'`").lower())
    if words.startswith("{"):
        inside, _, behind = words[1:].partition("}")
        given = inside.replace("=", " ").split()
        classes = [*([word[1:] for word in given if word.startswith(".")] or given), *behind.split()]
        return next((PYTHON for each in classes if _PYTHON_NAME.fullmatch(each)), classes[0] if classes else UNMARKED)
    found = _LANGUAGE.search(words)
    if found is None or found.group() in _NO_LANGUAGE:
        return UNMARKED
    # Some put a file's path there.
    file = words.split()[0].rpartition("/")[2]
    return PYTHON if _PYTHON_NAME.fullmatch(found.group()) or file.endswith(".py") else found.group()


class _Scanner:
    """Reads one text once from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._repairs = MAX_REPAIRS

    def blocks(self) -> Iterator[Block]:
        position = 0
        while position < len(self._text):
            opener = self._opener(position)
            if opener is None or (opener.language in _MARKDOWN and self._has_fences(opener)):
                position = self._next_line(position)
                continue
            end = self._python_end(opener) if opener.language in (PYTHON, UNMARKED) else self._plain_end(opener)
            content = _dedented(self._text[opener.body : end.content], opener)
            yield Block(opener.language, content, opener.start, end.resume, end.closed)
            position = end.resume

    def _opener(self, position: int) -> _Opener | None:
        found = _OPENER.match(self._text, position)
        if found is not None:
            prefix = found["prefix"]
            inside = prefix.rpartition(">")[2]
            quotes = prefix.count(">")
            indent = _columns(inside[1:] if quotes and inside[:1] == " " else inside)
            info = found["info"] if found["ticks"] else found["words"]
            fence = found["ticks"] or found["tildes"]
            return _Opener(fence, language_of(info), indent, quotes, position, found.end())
        found = _OPENER_AFTER_TEXT.match(self._text, position)
        if found is not None and language_of(found["info"]) == PYTHON:
            return _Opener(found["ticks"], PYTHON, 0, 0, found.start("ticks"), found.end())
        return None

    def _next_line(self, position: int) -> int:
        found = _LINE_END.search(self._text, position)
        return found.end() if found else len(self._text)

    def _lines(self, position: int) -> Iterator[tuple[int, re.Match[str] | None]]:
        """Each line's offset from a position on, and its fence if it begins with one."""
        while position < len(self._text):
            yield position, _FENCE_LINE.match(self._text, position)
            position = self._next_line(position)

    def _has_fences(self, opener: _Opener) -> bool:
        """The first fence inside has an info string, so it opens another block."""
        fences = (fence for _, fence in self._lines(opener.body) if fence)
        first = next(fences, None)
        return first is not None and bool(first["rest"].strip()) and not _TAG_LINE.match(first["rest"])

    def _plain_end(self, opener: _Opener) -> _End:
        """The end by CommonMark; where no fence closes the block, the first thing that cannot be part of it."""
        tag = None
        for position, fence in self._lines(opener.body):
            if opener.quotes and not self._text.startswith(">", _skip_blanks(self._text, position)):
                return _End(position, position, closed=False)
            if fence is None:
                if tag is None and _TAG_LINE.match(self._text, position):
                    tag = position
                continue
            if _closes(fence, opener):
                return _End(position, fence.end("fence"), closed=True)
            same = fence["fence"].startswith(opener.fence)
            if same and self._repairs > 0 and language_of(fence["rest"]) == PYTHON:
                return self._repaired(position if tag is None else tag)
        if tag is not None and self._repairs > 0:
            return self._repaired(tag)
        return _End(len(self._text), len(self._text), closed=False)

    def _repaired(self, position: int) -> _End:
        self._repairs -= 1
        return _End(position, position, closed=False)

    def _python_end(self, opener: _Opener) -> _End:
        """The end of Python code: the first fence or tag outside string literals, if what is before it compiles.

        A block that a literal seems to carry past its first closing fence may as well be broken code whose literal
        has no end; so it has to compile. What is not marked ends by CommonMark unless it is Python.
        """
        if self._repairs <= 0:
            return self._plain_end(opener)
        inside_literal = False
        for token in _TOKEN.finditer(self._text, opener.body):
            if token["literal"]:
                inside_literal = inside_literal or self._holds_closer(token, opener)
            elif token["stop"] and (end := self._stop(token, opener)):
                break
        else:
            end = _End(len(self._text), len(self._text), closed=False)
        if not inside_literal:
            return end if opener.language == PYTHON else self._plain_end(opener)
        if compiles(_dedented(self._text[opener.body : end.content], opener)):
            return end
        self._repairs -= 1
        return self._plain_end(opener)

    def _holds_closer(self, literal: re.Match[str], opener: _Opener) -> bool:
        if opener.fence[:3] not in literal.group():
            return False
        inner = self._lines(self._next_line(literal.start()))
        for position, fence in inner:
            if position >= literal.end():
                return False
            if fence is not None and _closes(fence, opener):
                return True
        return False

    def _stop(self, token: re.Match[str], opener: _Opener) -> _End | None:
        """The end of the block at a fence or a tag outside string literals; None where it is none."""
        backticks = token["stop"].endswith("`")
        start = self._line_start(token.start("stop"), opener.body) if backticks else token.start("stop")
        fence = _FENCE_LINE.match(self._text, start)
        if fence is None:
            if not backticks:
                return _End(start, start, closed=False)
            behind = token.end()
            while self._text.startswith("`", behind):
                behind += 1
            return _End(token.start(), behind, closed=True)
        if fence["fence"][0] == "~" and not (opener.fence[0] == "~" and _closes(fence, opener)):
            # Three tildes can be Python's operator.
            return _End(start, start, closed=False) if language_of(fence["rest"]) == PYTHON else None
        if fence["rest"].strip() and not _TAG_LINE.match(fence["rest"]):
            return _End(start, start, closed=False)
        return _End(start, fence.end("fence"), closed=True)

    def _line_start(self, position: int, first: int) -> int:
        """Where a position's line begins, if the line at `first` is not a later one."""
        return max(self._text.rfind("\n", first, position), self._text.rfind("\r", first, position), first - 1) + 1


def _closes(fence: re.Match[str], opener: _Opener) -> bool:
    """The line closes the opener's block, by CommonMark; an indent too small is as good."""
    if not fence["fence"].startswith(opener.fence):
        return False
    if fence["rest"].strip() and not _TAG_LINE.match(fence["rest"]):
        return False
    prefix = fence.group()[: fence.start("fence") - fence.start()]
    return prefix.count(">") == opener.quotes and _columns(prefix.rpartition(">")[2]) <= opener.indent + 3 + (
        1 if opener.quotes else 0
    )


def _dedented(content: str, opener: _Opener) -> str:
    """The content without the opener's indent and quote marks, as far as its first line of code has them."""
    if not opener.indent and not opener.quotes:
        return content
    unquoted = [_without_quotes(line, opener.quotes) for line in lines(content, keepends=True)]
    first = next((line for line in unquoted if line.strip()), "")
    if opener.quotes and first[0:1] == " ":
        unquoted = [line.removeprefix(" ") for line in unquoted]
        first = first[1:]
    indent = min(opener.indent, _columns(first[: len(first) - len(first.lstrip(" \t"))]))
    return "".join(_without_indent(line, indent) for line in unquoted)


def _without_quotes(line: str, quotes: int) -> str:
    """The line without so many quote marks; the space behind the last one stays."""
    start = 0
    for number in range(quotes):
        mark = _skip_blanks(line, start)
        if not line.startswith(">", mark):
            break
        start = mark + 1
        if number < quotes - 1 and line.startswith(" ", start):
            start += 1
    return line[start:]


def _without_indent(line: str, indent: int) -> str:
    taken = columns = 0
    while columns < indent and line[taken : taken + 1] in (" ", "\t"):
        columns += 1 if line[taken] == " " else _TAB - columns % _TAB
        if columns > indent:
            break
        taken += 1
    return line[taken:]


def _columns(prefix: str) -> int:
    return len(prefix.expandtabs(_TAB))


def _skip_blanks(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t"):
        position += 1
    return position
