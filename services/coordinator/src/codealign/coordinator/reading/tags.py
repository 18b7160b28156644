"""The tags that divide a completion, outside its code blocks and inline code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.coordinator.reading.fences import TAG, Block

_ANY_TAG = re.compile(TAG, re.IGNORECASE)
_TAG_OR_CODE = re.compile(rf"`[^`]+`|(?P<tag>{TAG})", re.IGNORECASE)
_LINE = re.compile(r"[^\n\r]+")
_BLANK = re.compile(r"[ \t>]+")
"""White space and block quote marks."""


@dataclass(frozen=True)
class Tag:
    """A tag that may divide the text."""

    start: int
    end: int
    alone: bool
    """Whether its line contains nothing else but other tags and the fence of a block."""
    last: bool
    """Whether only other tags follow it on its line."""


def find(text: str, blocks: Sequence[Block], name: str, start: int = 0) -> Tag | None:
    """Return the tag that divides a text: the first alone on its line, else the first that ends a line, else the first.

    Args:
        text: The text.
        blocks: Its code blocks. A tag inside one is code.
        name: Pattern for the contents of the angle brackets, such as "/answer".
        start: Offset at which the search starts.
    """
    found = list(_tags(text, blocks, name, start))
    alone = next((tag for tag in found if tag.alone), None)
    return alone or next((tag for tag in found if tag.last), None) or next(iter(found), None)


def _tags(text: str, blocks: Sequence[Block], name: str, start: int) -> Iterator[Tag]:
    pattern = re.compile(rf"<[ \t]*{name.replace('/', '/[ ]*')}[ \t]*>", re.IGNORECASE)
    for gap_start, gap_end in _gaps(len(text), blocks, start):
        for line in _LINE.finditer(text, gap_start, gap_end):
            yield from _tags_of_line(line, pattern)


def _tags_of_line(line: re.Match[str], pattern: re.Pattern[str]) -> Iterator[Tag]:
    """Yield the line's tags that match a pattern, in order, ignoring inline code."""
    found = [each for each in _TAG_OR_CODE.finditer(line.group()) if each["tag"]]
    if not any(pattern.fullmatch(each["tag"]) for each in found):
        return
    alone = not _BLANK.sub("", _ANY_TAG.sub("", line.group()))
    behind: list[bool] = []
    end, blank = len(line.group()), True
    for each in reversed(found):
        blank = blank and not _BLANK.sub("", line.group()[each.end() : end])
        behind.append(blank)
        end = each.start()
    for each, last in zip(found, reversed(behind), strict=True):
        if pattern.fullmatch(each["tag"]):
            yield Tag(line.start() + each.start(), line.start() + each.end(), alone, last)


def _gaps(length: int, blocks: Sequence[Block], start: int) -> Iterator[tuple[int, int]]:
    """Yield the gaps between blocks from a position on."""
    for block in blocks:
        if start < block.start:
            yield start, block.start
        start = max(start, block.end)
    if start < length:
        yield start, length
