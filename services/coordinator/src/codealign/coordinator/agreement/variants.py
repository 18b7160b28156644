"""Other values of the kind of a given one.

A variant keeps the type and the shape of what it varies: a list of numbers stays one, a dict of text to number stays
one, a record (a tuple or a dict whose items differ in type) keeps its fields. Its origin says why it is tried: a
BOUNDARY is near a value that some attempt compares with, an EDGE is extreme for its type, and a STRUCTURE has another
size, order or multiplicity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from codealign.common.sequences import alternating
from codealign.coordinator.agreement.hints import Hints
from codealign.coordinator.agreement.literals import MAX_NODES
from codealign.coordinator.agreement.values import Built, Value, source

BOUNDARY, EDGE, STRUCTURE = "boundary", "edge", "structure"
_MAX_SIZE = 12
"""Items of a list, and characters of a text, of a size that a hint asks for."""
_MAX_ITEMS = 6
"""Items of one value that are varied in their places."""
_MAX_DEPTH = 3
_MAX_OF_ONE = 60
"""Variants of one value."""
_LARGE, _FACTOR = 1_000, 10
"""A number is not tried if it is above both, where the second is a multiple of the value that it replaces: an argument
may be a count of steps."""
_LETTER = "é"


class Variant(NamedTuple):
    """A value and the reason for trying it."""

    value: Value
    origin: str


def variants(value: Value, hints: Hints) -> list[Variant]:
    """Return variants of a value, the most telling of each origin first, without repetitions."""
    found: dict[str, Variant] = {source(value): Variant(value, "")}
    for each in itertools.islice(_variants(value, hints, 0), 4 * _MAX_OF_ONE):
        found.setdefault(source(each.value), each)
    return list(found.values())[1 : _MAX_OF_ONE + 1]


def _variants(value: Value, hints: Hints, depth: int) -> Iterator[Variant]:
    if isinstance(value, bool):
        yield Variant(not value, EDGE)
    elif isinstance(value, int):
        yield from _integers(value, hints)
    elif isinstance(value, float):
        yield from _floats(value, hints)
    elif isinstance(value, str):
        yield from _texts(value, hints)
    elif isinstance(value, bytes):
        yield from (Variant(each, STRUCTURE) for each in (b"", value[:1], value[::-1], value * 2))
    elif depth >= _MAX_DEPTH:
        return
    elif isinstance(value, list):
        yield from _sequences(value, hints, depth, list)
    elif isinstance(value, tuple):
        yield from _sequences(value, hints, depth, tuple)
    elif isinstance(value, set | frozenset):
        yield from _sets(value, hints, depth)
    elif isinstance(value, dict):
        yield from _dicts(value, hints, depth)
    elif isinstance(value, Built):
        yield from _built(value, hints, depth)


def _integers(value: int, hints: Hints) -> Iterator[Variant]:
    numbers = [math.floor(each) for each in hints.numbers]
    near = [number + step for step in (0, -1, 1) for number in numbers]
    edges = [0, 1, -1, 2, value + 1, value - 1, -value, 10 * value, 7, 10, 100]
    for origin, candidates in ((BOUNDARY, near), (EDGE, edges)):
        for each in candidates:
            if _is_small(each, value) and (each >= 0 or hints.negative or value < 0):
                yield Variant(each, origin)


def _floats(value: float, hints: Hints) -> Iterator[Variant]:
    near = [float(number) + step for step in (0.0, -0.5, 0.5, -1.0, 1.0) for number in hints.numbers]
    edges = [0.0, 1.0, -1.0, 0.5, value + 0.25, -value, 10 * value, 1e-3, 100.0]
    for origin, candidates in ((BOUNDARY, near), (EDGE, edges)):
        for each in candidates:
            if math.isfinite(each) and _is_small(each, value) and (each >= 0 or hints.negative or value < 0):
                yield Variant(each, origin)


def _is_small(each: float, value: float) -> bool:
    return abs(each) <= max(_LARGE, _FACTOR * abs(value))


def _texts(value: str, hints: Hints) -> Iterator[Variant]:
    for hint in hints.texts:
        yield from (Variant(each, BOUNDARY) for each in (hint, value + hint, hint + value, hint.swapcase(), hint * 2))
    letters = value or "ab"
    for size in _sizes(hints):
        yield Variant("".join(itertools.islice(itertools.cycle(letters), size)), BOUNDARY)
    yield Variant("", EDGE)
    for each in (value.upper(), value.lower(), value[:1], value[::-1], value + value, f" {value} ", value + _LETTER):
        yield Variant(each, STRUCTURE)
    for each in (value + value[::-1], value.swapcase(), value.title(), f"{value} {value}", f"{value}1", f"{value}-!"):
        yield Variant(each, STRUCTURE)
    if value.isascii() and value.isdigit():
        yield from (Variant(str(each.value), each.origin) for each in _integers(int(value[:18]), hints))
    words = value.split(" ")
    if len(words) > 1:
        for some in (words[:1], words[::-1], sorted(words), [*words, words[0]]):
            yield Variant(" ".join(some), STRUCTURE)


def _sizes(hints: Hints) -> list[int]:
    """Return the sizes near the numbers that attempts compare with."""
    near = (number + step for step in (0, -1, 1) for number in hints.numbers if isinstance(number, int))
    return [size for size in dict.fromkeys(near) if 0 < size <= _MAX_SIZE]


def _sequences(
    value: Sequence[Value], hints: Hints, depth: int, made: Callable[[Iterable[Value]], Value]
) -> Iterator[Variant]:
    items = list(value)
    if not _is_alike(items):
        yield from _in_place(items, hints, depth, made)
        return
    first = _variants(items[0], hints, depth + 1) if items else iter(())
    elements = list(itertools.islice(first, _MAX_OF_ONE))
    for each in elements:
        if each.origin == BOUNDARY:
            yield Variant(made([*items, each.value]), BOUNDARY)
            yield Variant(made([each.value]), BOUNDARY)
    yield Variant(made([]), EDGE)
    if not items:
        return
    ordered = sorted(items, key=_order)
    for some in (items[:1], items[::-1], items + items[:1], ordered, ordered[::-1], items * 2, items[:1] * 3):
        yield Variant(made(some), STRUCTURE)
    for size in _sizes(hints):
        yield Variant(made(itertools.islice(itertools.cycle(items), size)), BOUNDARY)
    for each in elements:
        if each.origin != BOUNDARY:
            yield Variant(made([each.value, *items[1:]]), each.origin)
    yield Variant(made(each.value for each in elements[:_MAX_ITEMS]), STRUCTURE)
    yield Variant(made(items[:-1]), STRUCTURE)
    yield Variant(made(items[1:]), STRUCTURE)


def _order(item: Value) -> tuple[float, str]:
    """Return a key by which items of one type can be ordered, whatever the type."""
    if isinstance(item, int | float) and item == item:
        try:
            return float(item), ""
        except OverflowError:
            return math.copysign(math.inf, item), source(item)
    return 0.0, source(item)


def _in_place(
    items: Sequence[Value], hints: Hints, depth: int, made: Callable[[Iterable[Value]], Value]
) -> Iterator[Variant]:
    """Vary one item at a time, the best variant of each first."""
    columns = [
        zip(itertools.repeat(position), _variants(item, hints, depth + 1), strict=False)
        for position, item in enumerate(items[:_MAX_ITEMS])
    ]
    for position, each in alternating(columns):
        yield Variant(made([*items[:position], each.value, *items[position + 1 :]]), each.origin)


def _sets(value: set[Value] | frozenset[Value], hints: Hints, depth: int) -> Iterator[Variant]:
    items = sorted(value, key=_order)
    for each in _sequences(items, hints, depth, list) if _is_alike(items) else ():
        yield Variant(type(value)(each.value), each.origin)


def _dicts(value: dict[Value, Value], hints: Hints, depth: int) -> Iterator[Variant]:
    keys, items = list(value), list(value.values())
    if not _is_alike(items) or not _is_alike(keys):
        yield from _in_place(items, hints, depth, lambda varied: dict(zip(keys, varied, strict=True)))
        return
    for each in _in_place(items, hints, depth, lambda varied: dict(zip(keys, varied, strict=True))):
        if each.origin == BOUNDARY:
            yield each
    yield Variant({}, EDGE)
    for some in (keys[:1], keys[::-1], keys[:-1]):
        yield Variant({key: value[key] for key in some}, STRUCTURE)
    yield Variant(dict.fromkeys(keys, items[0]) if keys else {}, STRUCTURE)
    yield Variant(dict(zip(keys, items[::-1], strict=True)), STRUCTURE)
    if keys:
        for other in itertools.islice(_variants(keys[0], hints, depth + 1), _MAX_ITEMS):
            if other.value not in value:
                yield Variant({**value, other.value: items[0]}, STRUCTURE)
    yield from _in_place(items, hints, depth, lambda varied: dict(zip(keys, varied, strict=True)))


def _built(value: Built, hints: Hints, depth: int) -> Iterator[Variant]:
    names = [name for name, _ in value.keywords]
    count = len(value.arguments)

    def made(varied: Iterable[Value]) -> Value:
        items = tuple(varied)
        return Built(value.constructor, items[:count], tuple(zip(names, items[count:], strict=True)))

    yield from _in_place([*value.arguments, *(item for _, item in value.keywords)], hints, depth, made)


def _is_alike(items: Sequence[Value]) -> bool:
    """Return whether the items are of one type, as the items of a list are and the fields of a record are not."""
    return len({type(each) for each in items}) <= 1 and len(items) <= MAX_NODES
