"""Forms of values: the part of the observing program that decides what is equal, imported here as a module."""

from __future__ import annotations

import ast
import copy
import enum
import itertools
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.coordinator.agreement.in_sandbox.forms import TEXT_LIMIT, Incomparable, Writer, cut

NAN = float("nan")
Pair = namedtuple("Pair", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


@dataclass
class Point:
    x: int
    _cache: int = 0
    note: str = field(default="", compare=False)


class Node:
    def __init__(self, value: Any, _parent: Any = None) -> None:
        self.value, self._parent = value, _parent


class Slotted:
    __slots__ = ("_hidden", "x")

    def __init__(self) -> None:
        self.x, self._hidden = 1, 2


class Hostile:
    def __init__(self) -> None:
        self.x = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise KeyError(name)
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        raise RuntimeError


def form(value: Any) -> str:
    return Writer().written(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "None"),
        (True, "True"),
        (1, "1"),
        (1.0, "1"),
        (0.1 + 0.2, "0.3"),
        (2.9999999999999996, "3"),
        (1 / 3, "0.333333333333"),
        (-0.0, "0"),
        (NAN, "nan"),
        (float("-inf"), "-inf"),
        (1e300, "1e+300"),
        (1 + 2j, "complex(1, 2)"),
        ("é\n", "'\\xe9\\n'"),
        (b"a", "b'a'"),
        (bytearray(b"a"), "bytearray(b'a')"),
        ([1, (2,), ()], "[1, (2,), ()]"),
        ({3, 1, 2}, "{1, 2, 3}"),
        (set(), "set()"),
        (frozenset({"b", "a"}), "frozenset({'a', 'b'})"),
        ({"b": 1, "a": 2}, "{'a': 2, 'b': 1}"),
        (Counter("aab"), "{'a': 2, 'b': 1}"),
        (OrderedDict(a=1), "{'a': 1}"),
        (defaultdict(list, a=[1]), "{'a': [1]}"),
        (Pair(1, 2), "(1, 2)"),
        (Word("a"), "'a'"),
        (Colour.RED, "Colour.RED"),
        (range(3), "range(0, 3, 1)"),
        ({"a": 1}.keys(), "dict_keys({'a'})"),
        ({"a": 1}.values(), "dict_values([1])"),
        (deque([1, 2]), "deque([1, 2])"),
        (Decimal("1.10"), "Decimal('1.1')"),
        (Fraction(2, 4), "Fraction(1, 2)"),
        (date(2020, 1, 2), "datetime.date(2020, 1, 2)"),
        (Point(1, 5, "note"), "Point(x=1)"),
        (Node([1]), "Node(value=[1])"),
        (Slotted(), "Slotted(x=1)"),
        (ValueError("a", 1), "ValueError('a', 1)"),
        (int, "class int"),
        (iter([1, 2]), "iterator(1, 2)"),
        (zip([1], "a", strict=True), "iterator((1, 'a'))"),
        ((1 // n for n in (1, 0)), "iterator(1, raises ZeroDivisionError)"),
    ],
)
def test_each_kind_of_value_has_a_form(value: Any, expected: str) -> None:
    assert form(value) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [(True, 1), ([1], (1,)), ("1", 1), (None, 0), ({1}, [1]), ({1}, frozenset({1})), (iter([1]), [1]), (b"a", "a")],
)
def test_values_of_other_types_differ(one: Any, other: Any) -> None:
    assert form(one) != form(other)


def test_an_iterator_is_taken_up_to_a_bound() -> None:
    assert form(itertools.count()).endswith("998, 999, ...)")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: 1, id="a function"),
        pytest.param(object(), id="an object without attributes"),
        pytest.param([object()], id="such an object inside"),
        pytest.param([0] * 30_000, id="too many items"),
        pytest.param("x" * 3_000_000, id="too long a text"),
        pytest.param(1 << 30_000_000, id="too large a number"),
        pytest.param(Hostile(), id="an attribute that raises"),
        pytest.param((x for x in [object()]), id="an iterator of such objects"),
    ],
)
def test_what_cannot_be_compared_has_no_form(value: Any) -> None:
    with pytest.raises(Incomparable):
        form(value)


def test_what_contains_itself_has_no_form() -> None:
    items: list[Any] = []
    items.append(items)
    node = Node(1)
    node.value = node
    for value in (items, node):
        with pytest.raises(Incomparable, match="nested too deeply"):
            form(value)


def test_long_forms_are_cut_with_a_digest_of_the_whole() -> None:
    one, other = (cut(form("x" * 5_000 + end)) for end in "ab")
    assert one != other
    assert max(len(one), len(other)) < TEXT_LIMIT / 2
    assert cut("é" * 10).isascii()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.binary(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.sets(st.integers(), min_size=1, max_size=4)
    ),
    max_leaves=10,
)


@given(plain)
def test_the_form_of_a_literal_is_its_literal(value: Any) -> None:
    text = form(value)
    assert ast.literal_eval(text) == value
    assert form(ast.literal_eval(text)) == text
    assert text.isascii()
    assert text.isprintable()


def typed(value: Any) -> Any:
    """Return what is equal for equal values of equal types."""
    if isinstance(value, dict):
        return dict, frozenset((key, typed(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(typed, value))
    return type(value), frozenset(map(typed, value)) if isinstance(value, set) else value


@given(plain, st.data())
def test_forms_are_equal_exactly_if_the_values_and_their_types_are(one: Any, data: st.DataObject) -> None:
    other = data.draw(plain | st.just(one).map(copy.deepcopy))
    assert (form(one) == form(other)) == (typed(one) == typed(other))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6))
def test_the_order_of_additions_makes_no_difference(numbers: list[float]) -> None:
    """Unless the sum is tiny beside its terms, so that rounding errors are a large part of it."""
    one, other = sum(numbers), sum(reversed(numbers))
    if abs(one) > 1 and one == pytest.approx(other, rel=1e-15):
        assert float(form(one)) == pytest.approx(float(form(other)), rel=2e-12)


@given(st.dictionaries(st.integers(), st.integers()))
def test_dicts_have_no_order(table: dict[int, int]) -> None:
    assert form(dict(reversed(table.items()))) == form(table)
