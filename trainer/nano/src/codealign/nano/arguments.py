"""Arguments to test functions with: boundary values and random ones, of the kinds that nano's functions take."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from codealign.nano.blocks import Argument

SMALL = 30
"""Largest of the numbers that a function may count up to."""
_NUMBERS = (-21, -12, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 20, 25)
_WORDS = (
    *("x", "ox", "zz", "sea", "bus", "eve", "zoo", "Yes", "moon", "noon", "Anna", "pear", "APPLE", "Essay", "level"),
    *("Oasis", "sauce", "queen", "civic", "area", "rhythm", "banana"),
)
"""Words of every length, also such that read the same backwards; the shortest come last in the alphabet."""
_LETTERS = "aAbceEgilmMnopqsStuxz"
_MIXED = 24
"""Number of random arguments with several elements, or of random numbers."""
_T = TypeVar("_T")


def draw(
    dice: random.Random,
    kind: Argument,
    constants: Iterable[int | str] = (),
    *,
    is_small: bool = False,
    keeps: Callable[[object], bool] = lambda _: True,
) -> list[object]:
    """Return arguments with no, one and several elements.

    Args:
        dice: Random generator.
        kind: Kind of the arguments.
        constants: Of the function. Some elements are equal to a number, or one below or above; some contain a text.
        is_small: Whether a number is at most `SMALL`, and a text one word.
        keeps: Whether the function keeps an element. Half of the random arguments have only such elements.
    """
    given = list(constants)
    numbers = [*_NUMBERS, *(each + step for each in given if isinstance(each, int) for step in (-1, 0, 0, 1))]
    words = [*_WORDS, *(word for each in given if isinstance(each, str) and each.isalpha() for word in _around(each))]
    match kind:
        case Argument.NUMBERS:
            return list(_lists(dice, numbers, keeps))
        case Argument.WORDS:
            return list(_lists(dice, words, keeps))
        case Argument.TEXT if is_small:
            return [*words, *("".join(letters) for letters in _lists(dice, _LETTERS, keeps))]
        case Argument.TEXT:
            return [" ".join(each) for each in _lists(dice, words, keeps)]
        case Argument.COUNT if is_small:
            return list(range(SMALL + 1))
        case Argument.COUNT:
            return [dice.randrange(10 ** (1 + number % 4)) for number in range(2 * _MIXED)]
        case Argument.TABLE:
            return [
                *(
                    dict(zip(dice.sample(_WORDS, len(each)), each, strict=True))
                    for each in _lists(dice, numbers, keeps)
                ),
                *({word: dice.choice(numbers) for word in each} for each in _lists(dice, words, keeps)),
            ]


def _around(text: str) -> tuple[str, ...]:
    """Return words that begin with, end with, contain, or are a text."""
    return text, f"{text}x", f"x{text}", f"x{text}x", f"{text}x{text}"


def _lists(dice: random.Random, elements: Sequence[_T], keeps: Callable[[object], bool]) -> Iterator[list[_T]]:
    kept = [each for each in elements if keeps(each)] or elements
    yield []
    yield from ([each] for each in dict.fromkeys(elements))
    for number in range(_MIXED):
        yield dice.choices(elements if number % 2 else kept, k=2 + number % 5)
