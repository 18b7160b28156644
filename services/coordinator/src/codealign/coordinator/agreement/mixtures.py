"""Values put together at random from parts of the values that tests use.

A variation changes one thing of a value. Answers that differ only for a rare combination (a number together with its
negative, a long word in which a letter occurs twice) need values that nobody wrote. They are drawn from the parts of
what tests call with and the values that attempts compare with. The draws derive from the texts of both: equal texts
give equal values, since `random.Random.random` is the same in every release of Python.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from codealign.coordinator.agreement.hints import Hints
from codealign.coordinator.agreement.values import Value, listed, source

MAX_ITEMS = 8
"""Items of a container, characters of a text that is put together."""
_MAX_EXAMPLES = 64
"""Values at one place that are looked at."""
_MAX_DEPTH = 3
_REPEATED, _NEGATED, _TAKEN = 0.25, 0.15, 0.4
"""Probabilities of an item that is there already, of the negative of one, and of a text or number of the tests."""
_SMALL = 12
_T = TypeVar("_T")


def mixtures(rows: Sequence[Sequence[Value]], hints: Hints) -> Iterator[list[Value]]:
    """Yield arguments without end.

    Args:
        rows: Arguments of calls, all with the same number.
        hints: Values near which attempts may differ.
    """
    text = "\n".join([source(list(row)) for row in rows] + [repr(hints)])
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    mixer = _Mixer(hints, random.Random(seed))  # noqa: S311 - not used for secrets
    columns = [list(column)[:_MAX_EXAMPLES] for column in zip(*rows, strict=True)]
    while columns:
        yield [mixer.like(column, 0) for column in columns]


class _Mixer:
    def __init__(self, hints: Hints, dice: random.Random) -> None:
        self._hints, self._dice = hints, dice
        self._near = [math.floor(number) + step for number in hints.numbers for step in (-1, 0, 1)]
        self._near = [each for each in self._near if abs(each) <= _SMALL * _SMALL]

    def like(self, examples: Sequence[Value], depth: int) -> Value:
        """Return a value of the kind of one of the examples."""
        one = self._any(examples)
        same = [each for each in examples if type(each) is type(one)]
        if isinstance(one, bool):
            return self._dice.random() < 0.5
        if isinstance(one, int):
            return self._integer(same)
        if isinstance(one, float):
            return self._float(same)
        if isinstance(one, str):
            return self._text(same)
        if depth >= _MAX_DEPTH:
            return one
        if isinstance(one, list | tuple | set | frozenset):
            lists = [listed(each) if isinstance(each, set | frozenset) else each for each in same]
            items = [item for each in lists for item in each][:_MAX_EXAMPLES]
            if isinstance(one, tuple) and len({len(each) for each in same}) == 1 and len(same) > 1:
                return tuple(self.like(column, depth + 1) for column in zip(*same, strict=True))  # a record
            return type(one)(self._items(items, depth))
        if isinstance(one, dict) and all(isinstance(key, int | float | str) for each in same for key in each):
            keys = [key for each in same for key in each][:_MAX_EXAMPLES]
            items = [item for each in same for item in each.values()][:_MAX_EXAMPLES]
            if len({type(each) for each in items}) > 1:
                return one  # a record: its fields belong to its keys
            return {key: self.like(items, depth + 1) for key in self._items(keys, depth)}
        return one

    def _any(self, values: Sequence[_T]) -> _T:
        return values[int(self._dice.random() * len(values))]

    def _items(self, examples: Sequence[Value], depth: int) -> list[Value]:
        made: list[Value] = []
        for _ in range(int(self._dice.random() * (MAX_ITEMS + 1)) if examples else 0):
            dice = self._dice.random()
            if made and dice < _REPEATED:
                made.append(self._any(made))
            elif made and dice < _REPEATED + _NEGATED and self._is_negatable(earlier := self._any(made), examples):
                made.append(-earlier)
            else:
                made.append(self.like(examples, depth + 1))
        return made

    def _is_negatable(self, value: Value, examples: Sequence[Value]) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self._negative(examples)

    def _negative(self, examples: Sequence[Value]) -> bool:
        return self._hints.negative or any(isinstance(each, int | float) and each < 0 for each in examples)

    def _integer(self, examples: Sequence[int]) -> int:
        dice = self._dice.random()
        if dice < _TAKEN:
            return self._any(examples)
        if dice < 2 * _TAKEN and self._near:
            found = self._any(self._near)
        else:
            found = int(self._dice.random() * (3 * _SMALL)) - _SMALL
        return found if found >= 0 or self._negative(examples) else -found

    def _float(self, examples: Sequence[float]) -> float:
        dice = self._dice.random()
        if dice < _TAKEN:
            return self._any(examples)
        whole = [each for each in examples if math.isfinite(each)] or [1.0]
        found = float(self._integer([math.floor(min(max(each, -1e6), 1e6)) for each in whole]))
        return found + (0.5 if dice < 2 * _TAKEN else 0.0)

    def _text(self, examples: Sequence[str]) -> str:
        if self._dice.random() < _TAKEN:
            return self._any(examples)
        letters = "".join(examples)[: _MAX_EXAMPLES * 8] or "ab"
        said = [each for each in self._hints.texts if len(each) <= _SMALL]
        made = ""
        for _ in range(int(self._dice.random() * (MAX_ITEMS + 1))):
            dice = self._dice.random()
            if made and dice < _REPEATED:
                made += self._any(made)
            elif said and dice < 2 * _REPEATED:
                made += self._any(said)
            else:
                made += self._any(letters)
        return made if self._dice.random() < 0.9 else made.swapcase()
