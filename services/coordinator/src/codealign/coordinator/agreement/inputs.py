"""Inputs at which attempts at one instruction are compared.

They are the arguments of all attempts' tests, and variations of them. Hypothesis generates and shrinks values much
better, but it searches while it executes, and what it draws depends on its release: here all inputs must be known
before an execution elsewhere, and be the same for every attempt, on every machine and years later. So the variations
are a fixed list. Values keep the kinds that tests use: an input of another kind says nothing about an answer.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.common.sequences import alternating
from codealign.coordinator.agreement import literals
from codealign.coordinator.agreement.calls import Arguments, Reading
from codealign.coordinator.agreement.hints import Hints
from codealign.coordinator.agreement.literals import NotLiteral
from codealign.coordinator.agreement.mixtures import mixtures
from codealign.coordinator.agreement.subjects import Subject
from codealign.coordinator.agreement.values import Value, source
from codealign.coordinator.agreement.variants import BOUNDARY, EDGE, STRUCTURE, variants

LIMIT = 96
"""Inputs, unless asked for otherwise. A call takes microseconds; reading and comparing more would gain little."""
TESTS, COMBINATION, MIXTURE = "tests", "combination", "mixture"
MAX_VARIED_CHARS = 500
"""Characters of the arguments of a varied input."""
_MAX_BASES = 4
"""Inputs of the tests that are varied."""
_MAX_POSITIONS = 8
"""Arguments of a call that are varied."""
_MAX_MIXED = 64
"""Mixtures, of which some may be there already."""
_MAX_COMBINED = 3
"""Variants of each of two arguments that are combined."""
_OF_ANNOTATION: dict[str, Value] = {
    "int": 3,
    "float": 1.5,
    "str": "abc",
    "bool": True,
    "bytes": b"ab",
    "list": [3, 1, 2],
    "tuple": (3, 1, 2),
    "set": {1, 2, 3},
    "dict": {"a": 1, "b": 2},
}
_GENERIC = {
    "List": "list",
    "Sequence": "list",
    "Iterable": "list",
    "Tuple": "tuple",
    "Set": "set",
    "Dict": "dict",
    "Mapping": "dict",
}


@dataclass(frozen=True)
class Input:
    """Arguments to call every attempt with."""

    arguments: Arguments
    origin: str
    """Why they are tried: "tests", "boundary", "edge", "structure", "combination" or "mixture"."""

    @property
    def claimed(self) -> bool:
        """Whether the tests of some attempt call it with these arguments, so that they are meant to be valid."""
        return self.origin == TESTS


class _Base:
    """A call that is varied.

    Args:
        positional: Values of the positional arguments.
        keywords: Names and values of the others.
    """

    def __init__(self, positional: Sequence[Value], keywords: Sequence[tuple[str, Value]]) -> None:
        self._count, self._names = len(positional), [name for name, _ in keywords]
        self.values = [*positional, *(value for _, value in keywords)]
        self._texts = [source(value) for value in self.values]

    @property
    def positions(self) -> range:
        """Positions of the values that are varied."""
        return range(min(len(self.values), _MAX_POSITIONS))

    def is_like(self, other: _Base) -> bool:
        """Return whether the call has as many positional arguments, and the same keywords."""
        return (self._count, self._names) == (other._count, other._names)

    def replaced(self, *changes: tuple[int, Value]) -> Arguments:
        """Return the call's arguments with other values at some positions."""
        texts = list(self._texts)
        for position, value in changes:
            texts[position] = source(value)
        named = zip(self._names, texts[self._count :], strict=True)
        return Arguments(tuple(texts[: self._count]), tuple(named))


def vary(readings: Sequence[Reading], hints: Hints, *, limit: int = LIMIT) -> tuple[Input, ...]:
    """Return inputs, the most telling first, without repetitions.

    The inputs of the tests, boundaries, edges, structures, combinations and mixtures take turns.

    Args:
        readings: What was found in the attempts and their tests.
        hints: Values near which attempts may differ.
        limit: Most inputs.
    """
    called = list(dict.fromkeys(alternating([reading.calls for reading in readings])))
    bases = _bases(called) or list(_from_signatures(readings))[:_MAX_BASES]
    by_origin: dict[str, list[Arguments]] = {TESTS: called, BOUNDARY: [], EDGE: [], STRUCTURE: [], COMBINATION: []}
    for origin, arguments in alternating([_varied(base, hints) for base in bases]):
        by_origin[origin].append(arguments)
    by_origin[COMBINATION] = list(_combined(bases, hints)) if bases else []
    by_origin[MIXTURE] = list(_mixed(called, bases, hints)) if bases else []
    claimed = set(called)
    found: dict[Arguments, Input] = {}
    for origin, arguments in alternating([[(origin, each) for each in some] for origin, some in by_origin.items()]):
        if arguments in claimed:
            found.setdefault(arguments, Input(arguments, TESTS))
        elif arguments.chars <= MAX_VARIED_CHARS:
            found.setdefault(arguments, Input(arguments, origin))
    return tuple(itertools.islice(found.values(), limit))


def claims(reading: Reading, inputs: Sequence[Input]) -> frozenset[int]:
    """Return the numbers of the inputs that an attempt's tests call."""
    called = frozenset(reading.calls)
    return frozenset(number for number, each in enumerate(inputs) if each.arguments in called)


def _bases(called: Sequence[Arguments]) -> list[_Base]:
    """Return the calls to vary: those of the most frequent shape first, in the order of the tests."""
    shapes = Counter(_shape(each) for each in called)
    ordered = sorted(called, key=lambda each: -shapes[_shape(each)])
    return list(itertools.islice(filter(None, map(_base, ordered)), _MAX_BASES))


def _base(called: Arguments) -> _Base | None:
    try:
        positional = [literals.parsed(text) for text in called.positional]
        return _Base(positional, [(name, literals.parsed(text)) for name, text in called.keywords])
    except NotLiteral:
        return None


def _shape(arguments: Arguments) -> tuple[int, tuple[str, ...]]:
    return len(arguments.positional), tuple(name for name, _ in arguments.keywords)


def _from_signatures(readings: Sequence[Reading]) -> Iterator[_Base]:
    """Yield a call by the annotations and defaults of each attempt that has some for every required parameter."""
    for subject in dict.fromkeys(reading.subject for reading in readings if reading.subject is not None):
        values = list(_of_signature(subject))
        if values and None not in values:
            yield _Base(values, ())


def _of_signature(subject: Subject) -> Iterator[Value | None]:
    for parameter in subject.parameters:
        if parameter.kind != "positional":
            continue
        name = parameter.annotation.partition("[")[0].rpartition(".")[2]
        value = _OF_ANNOTATION.get(_GENERIC.get(name, name))
        if value is None and parameter.default:
            return  # it may be left out
        yield value


def _varied(base: _Base, hints: Hints) -> Iterator[tuple[str, Arguments]]:
    """Yield the base with one value replaced, with the reason."""
    columns = [[(position, each) for each in variants(base.values[position], hints)] for position in base.positions]
    for position, (value, origin) in alternating(columns):
        yield origin, base.replaced((position, value))


def _combined(bases: Sequence[_Base], hints: Hints) -> Iterator[Arguments]:
    """Yield the first base with two values replaced, then with values that other calls have in their places."""
    first = bases[0]
    best = [[each.value for each in variants(first.values[i], hints)][:_MAX_COMBINED] for i in first.positions]
    for one, other in itertools.islice(itertools.combinations(first.positions, 2), _MAX_COMBINED):
        for left, right in itertools.product(best[one], best[other]):
            yield first.replaced((one, left), (other, right))
    for base in bases[1:]:
        if len(base.values) == len(first.values) > 1:
            yield from (first.replaced((position, base.values[position])) for position in first.positions)


def _mixed(called: Sequence[Arguments], bases: Sequence[_Base], hints: Hints) -> Iterator[Arguments]:
    """Yield calls of the first base's shape with arguments put together from those of all calls of this shape."""
    first = bases[0]
    alike = [each for each in map(_base, called[:_MAX_MIXED]) if each is not None and each.is_like(first)]
    rows = [each.values for each in alike or [first]]
    for values in itertools.islice(mixtures(rows, hints), _MAX_MIXED):
        yield first.replaced(*enumerate(values))
