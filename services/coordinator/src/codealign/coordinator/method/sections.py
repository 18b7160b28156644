"""The tags that divide a completion, outside its code blocks and inline code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.coordinator.method.fences import TAG, Block

_ANY_TAG = re.compile(TAG, re.IGNORECASE)


@dataclass(frozen=True)
class Tag:
    """A tag where it may divide the text."""

    start: int
    end: int
    alone: bool
    """Its line holds nothing but it, other tags, and the fence of a block."""
    last: bool
    """Nothing but other tags follows it on its line."""


def find(text: str, blocks: Sequence[Block], name: str, start: int = 0) -> Tag | None:
    """The tag that divides a text: the first alone on its line, else the first that ends a line, else the first.

    Args:
        text: The text.
        blocks: Its code blocks. A tag inside one is code.
        name: A pattern of what stands in the angle brackets, as "/answer".
        start: Offset from which on to look.
    """
    found = list(_tags(text, blocks, name, start))
    alone = next((tag for tag in found if tag.alone), None)
    return alone or next((tag for tag in found if tag.last), None) or next(iter(found), None)


def _tags(text: str, blocks: Sequence[Block], name: str, start: int) -> Iterator[Tag]:
    slash = "/" if name.startswith("/") else ""
    pattern = rf"`[^`\n\r]+`|(?P<tag><[ \t]*{slash}[ \t]*{name.removeprefix('/')}[ \t]*>)"
    for gap_start, gap_end in _gaps(len(text), blocks, start):
        for found in re.compile(pattern, re.IGNORECASE).finditer(text, gap_start, gap_end):
            if found["tag"]:
                before = _rest(_line_before(text, gap_start, found.start()))
                after = _rest(_line_after(text, found.end(), gap_end))
                yield Tag(found.start(), found.end(), not before and not after, not after)


def _gaps(length: int, blocks: Sequence[Block], start: int) -> Iterator[tuple[int, int]]:
    """What lies between the blocks, from a position on."""
    for block in blocks:
        if start < block.start:
            yield start, block.start
        start = max(start, block.end)
    if start < length:
        yield start, length


def _line_before(text: str, gap_start: int, position: int) -> str:
    return re.split(r"[\r\n]", text[gap_start:position])[-1]


def _line_after(text: str, position: int, gap_end: int) -> str:
    return re.split(r"[\r\n]", text[position:gap_end], maxsplit=1)[0]


def _rest(part: str) -> str:
    """Without tags, quote marks and white space."""
    return _ANY_TAG.sub("", part).strip(" \t>")
