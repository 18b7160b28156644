r"""Fenced code blocks of a Markdown text, found as in CommonMark, with deviations for models' mistakes.

A block opens with at least three backticks or tildes and closes at a line with at least as many of the same character.
Its content is everything in between, byte for byte, including line endings and the one after the last line. Only the
opener's indentation (as far as the code has it) and block quote marks are removed. Lines end only at \n, \r\n and \r.

Each deviation makes a block readable that CommonMark would lose or join with its neighbors:

- An opener may have any indentation and may follow list markers and quote marks, or text if it is marked as Python.
- A word that names the content rather than a language ("solution", "tests") does not mark a block.
- In Python, a fence line counts only outside string literals: a docstring may contain fences. Outside literals, nothing
  that begins with three backticks is Python, so any fence there closes the block, even one that is shorter, indented
  or at the end of the last line of code.
- A block without a closing fence ends at the next opener marked as Python, at a line with a tag of the prompts, or at
  the end of the text.
- A closing fence may be followed by such a tag on its line.
- A fence marked as Markdown that contains fences is transparent.

Run time is linear in the length of the text: anything that needs a second pass is done at most `MAX_REPAIRS` times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from codealign.common.text import lines
from codealign.coordinator.reading.python_code import compiles

MAX_REPAIRS = 32
"""Maximum repairs per text; answers need at most one or two. Beyond that, blocks end as in CommonMark."""
UNMARKED, PYTHON = "", "python"
TAG = r"<[ \t]*(?:/[ \t]*)?(?:answer|tests?|task|concepts)[ \t]*>"
"""Tags of the prompts. No line of Python begins with one."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_END = r"(?:\r\n|\n|\r|\Z)"
_MARKER = r"(?:>|(?:[-*+•◦▪●‣]|\(?(?:\d{1,9}|[A-Za-z]|[ivx]{1,5})[.)])(?=[ \t`~]))"
_MARKERS = rf"(?:[ \t]*{_MARKER})*[ \t]*"
_FENCE = r"(?:(?P<ticks>`{3,})(?P<info>[^`\n\r]*)|(?P<tildes>~{3,})(?P<words>[^\n\r]*))"
_OPENER = re.compile(rf"(?P<prefix>{_MARKERS}){_FENCE}{_END}")
_OPENER_AFTER_TEXT = re.compile(rf"[^`\n\r]*[^` \t\n\r][ \t]*(?P<ticks>`{{3,}})(?P<info>[^`\n\r]*){_END}")
_PREFIX = re.compile(_MARKERS)
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
"""Python tokens needed to tell whether a fence is in a string literal, and what may end a block."""
_LANGUAGE = re.compile(r"\w[\w+#-]*(?:\.\w+)*")
_PYTHON_NAME = re.compile(
    r"(?:lang(?:uage)?-)?(?:(?:[ic]|micro|circuit)?python|pypy|pyw?)[-_]?(?:\d+(?:\.[\dx]+)*)?(?:#.*)?|.*\.pyw?"
)
_NO_LANGUAGE = frozenset(
    {"answer", "code", "function", "implementation", "program", "pytest", "solution", "test", "tests", "unittest"}
)
"""Words that name the content of a block, not its language."""
_KEY = re.compile(r"\A(?:lang|language)\s*[=:]\s*[\"']?")
_MARKDOWN = frozenset({"markdown", "md", "mdx"})
_TAB = 4


@dataclass(frozen=True)
class Block:
    """A fenced block of a text."""

    language: str
    """First word of the info string in lower case: `PYTHON` for all of its names, `UNMARKED` if there is none."""
    content: str
    start: int
    """Offset of the opener's line, or of the fence if text precedes it on the line."""
    end: int
    """Offset after the closing fence."""
    closed: bool
    """Whether a fence closed the block, rather than what came next."""


@dataclass(frozen=True)
class _Opener:
    fence: str
    language: str
    indent: int
    """Columns removed from each line of the content."""
    quotes: int
    """Depth of the enclosing block quote."""
    start: int
    body: int
    """Offset of the content."""


@dataclass(frozen=True)
class _End:
    content: int
    """Offset after the content."""
    resume: int
    """Offset at which the text continues."""
    closed: bool


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a text in order, including empty ones."""
    return list(_Scanner(text).blocks())


def language_of(info: str) -> str:
    """Return the language that an info string names."""
    words = _KEY.sub("", info.strip().strip("\"'`").lower())
    if words.startswith("{"):
        inside, _, behind = words[1:].partition("}")
        given = inside.replace("=", " ").split()
        classes = [*([word[1:] for word in given if word.startswith(".")] or given), *behind.split()]
        return next((PYTHON for each in classes if _PYTHON_NAME.fullmatch(each)), classes[0] if classes else UNMARKED)
    found = _LANGUAGE.search(words)
    if found is None or found.group() in _NO_LANGUAGE:
        return UNMARKED
    # Some models put a file path there.
    file = words.split()[0].rpartition("/")[2]
    return PYTHON if _PYTHON_NAME.fullmatch(found.group()) or file.endswith(".py") else found.group()


class _Scanner:
    """Scans one text once from beginning to end."""

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
            indent, quotes = _columns_and_quotes(found["prefix"])
            info = found["info"] if found["ticks"] else found["words"]
            fence = found["ticks"] or found["tildes"]
            return _Opener(fence, language_of(info), indent, quotes, position, found.end())
        found = _OPENER_AFTER_TEXT.match(self._text, position)
        if found is not None and language_of(found["info"]) == PYTHON:
            prefix = _PREFIX.match(self._text, position)
            indent, quotes = _columns_and_quotes(prefix.group() if prefix else "")
            return _Opener(found["ticks"], PYTHON, indent, quotes, found.start("ticks"), found.end())
        return None

    def _next_line(self, position: int) -> int:
        found = _LINE_END.search(self._text, position)
        return found.end() if found else len(self._text)

    def _lines(self, position: int) -> Iterator[tuple[int, re.Match[str] | None]]:
        """Yield the offset of each line from a position on, with its fence if the line begins with one."""
        while position < len(self._text):
            yield position, _FENCE_LINE.match(self._text, position)
            position = self._next_line(position)

    def _has_fences(self, opener: _Opener) -> bool:
        """Return whether the first fence inside has an info string and therefore opens another block."""
        fences = (fence for _, fence in self._lines(opener.body) if fence)
        first = next(fences, None)
        return first is not None and bool(first["rest"].strip()) and not _TAG_LINE.match(first["rest"])

    def _plain_end(self, opener: _Opener) -> _End:
        """Return the end by CommonMark or, if no fence closes the block, the first thing that cannot be part of it."""
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
        """Return the end of Python code: the first fence or tag outside string literals, if the code before compiles.

        If a literal seems to carry the block past its first closing fence, the code may also be broken with an
        unterminated literal, so it has to compile. An unmarked block ends as in CommonMark unless it is Python.
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
        """Return the block's end at a fence or tag outside string literals, or None if the block does not end there."""
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
            # Three tildes can be Python operators.
            return _End(start, start, closed=False) if language_of(fence["rest"]) == PYTHON else None
        if fence["rest"].strip() and not _TAG_LINE.match(fence["rest"]):
            return _End(start, start, closed=False)
        return _End(start, fence.end("fence"), closed=True)

    def _line_start(self, position: int, first: int) -> int:
        """Return the start of a position's line, or `first` if that is later."""
        return max(self._text.rfind("\n", first, position), self._text.rfind("\r", first, position), first - 1) + 1


def _columns_and_quotes(prefix: str) -> tuple[int, int]:
    """Return the columns that list markers and white space take inside the block quote, and the quote's depth."""
    quotes, inside = prefix.count(">"), prefix.rpartition(">")[2]
    return _columns(inside[1:] if quotes and inside[:1] == " " else inside), quotes


def _closes(fence: re.Match[str], opener: _Opener) -> bool:
    """Return whether the line closes the opener's block by CommonMark; too little indentation is accepted too."""
    if not fence["fence"].startswith(opener.fence):
        return False
    if fence["rest"].strip() and not _TAG_LINE.match(fence["rest"]):
        return False
    prefix = fence.group()[: fence.start("fence") - fence.start()]
    return prefix.count(">") == opener.quotes and _columns(prefix.rpartition(">")[2]) <= opener.indent + 3 + (
        1 if opener.quotes else 0
    )


def _dedented(content: str, opener: _Opener) -> str:
    """Return the content without the opener's indentation and quote marks, as far as its first code line has them."""
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
    """Return the line without this many quote marks; the space after the last one is kept."""
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
