"""Values of arguments, and their sources."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Value = Any
"""None, bool, int, float, str, bytes, list, tuple, set, frozenset, dict of these, or `Built`."""


@dataclass(frozen=True)
class Built:
    """A call of a constructor, such as `collections.deque([1, 2])` or `Point(1, y=2)`."""

    constructor: str
    """Name of a class of the answer, or qualified name of one of the standard library."""
    arguments: tuple[Value, ...]
    keywords: tuple[tuple[str, Value], ...] = ()


def source(found: Value) -> str:
    """Write a value so that equal values of equal types have equal sources on every machine.

    Items of sets are in the order of their sources.
    """
    if isinstance(found, float):
        return repr(found) if math.isfinite(found) else f"float('{found}')"
    if isinstance(found, str):
        return quoted(found)
    if isinstance(found, list):
        return f"[{_joined(found)}]"
    if isinstance(found, tuple):
        return f"({_joined(found)}{',' * (len(found) == 1)})"
    if isinstance(found, set | frozenset):
        items = ", ".join(sorted(map(source, found)))
        if isinstance(found, frozenset):
            return f"frozenset({{{items}}})" if items else "frozenset()"
        return f"{{{items}}}" if items else "set()"
    if isinstance(found, dict):
        return "{" + ", ".join(f"{source(key)}: {source(item)}" for key, item in found.items()) + "}"
    if isinstance(found, Built):
        keywords = [f"{name}={source(item)}" for name, item in found.keywords]
        return f"{found.constructor}({', '.join([*map(source, found.arguments), *keywords])})"
    return repr(found)


def listed(found: set[Value] | frozenset[Value]) -> list[Value]:
    """Return the items of a set in an order that all processes have.

    Each process has its own hashes of texts, and so its own order of a set with texts in it. The order of numbers is
    that of their hashes, which all have.
    """
    return sorted(found, key=source) if any(map(_is_hashed_anew, found)) else list(found)


def _is_hashed_anew(item: Value) -> bool:
    if isinstance(item, tuple | frozenset):
        return any(map(_is_hashed_anew, item))
    return not isinstance(item, int | float)


def _joined(items: Iterable[Value]) -> str:
    return ", ".join(map(source, items))


def quoted(text: str) -> str:
    """Return a text as a string literal.

    `repr` escapes what the running Python's version of Unicode does not call printable; this escapes what is neither
    ASCII nor a letter, mark, number or symbol of Unicode 3.2, so that all versions agree.
    """
    if text.isascii():
        return repr(text)
    parts = [each if each.isascii() or _is_readable(each) else ascii(each)[1:-1] for each in text]
    quote = '"' if "'" in text and '"' not in text else "'"
    return quote + "".join(_escaped(part, quote) if len(part) == 1 else part for part in parts) + quote


def _escaped(character: str, quote: str) -> str:
    if character == quote or character == "\\":
        return f"\\{character}"
    return repr(character)[1:-1] if character.isascii() and character not in "'\"" else character


def _is_readable(character: str) -> bool:
    return unicodedata.ucd_3_2_0.category(character)[0] in "LNPS"
