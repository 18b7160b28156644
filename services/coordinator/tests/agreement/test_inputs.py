"""Inputs: variations of what tests call a function with."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.coordinator.agreement import hints, inputs
from codealign.coordinator.agreement.calls import Arguments, read
from codealign.coordinator.agreement.hints import Hints
from codealign.coordinator.agreement.inputs import Input, vary
from codealign.coordinator.agreement.literals import NotLiteral, parsed, value
from codealign.coordinator.agreement.values import Built, source
from codealign.coordinator.agreement.variants import BOUNDARY, EDGE, STRUCTURE, variants

NO_HINTS = Hints()


def varied(*attempts: tuple[str, str], instruction: str = "", limit: int = 64) -> list[Input]:
    found = hints.find([code for code, _ in attempts], [tests for _, tests in attempts], instruction)
    return list(vary([read(*each) for each in attempts], found, limit=limit))


def values(given_value: object, found: Hints = NO_HINTS, origin: str = "") -> list[Any]:
    return [each.value for each in variants(given_value, found) if origin in ("", each.origin)]


def test_the_boundary_of_a_comparison_is_among_the_first_inputs() -> None:
    attempts = [
        ("def small(n):\n    return n <= 5\n", "assert not small(6)\nassert not small(8)\n"),
        ("def small(n):\n    return n < 5\n", "assert small(3)\n"),
    ]
    found = [str(each.arguments) for each in varied(*attempts, instruction="Tell whether n is less than 5.")]
    assert "5" in found[:3]
    assert {"4", "6", "0", "3", "8"} <= set(found)


@pytest.mark.parametrize(
    ("instruction", "code", "number"),
    [
        ("Return at most three items.", "", 3),
        ("Numbers above 12 count.", "", 12),
        ("Prices below 2.5 count.", "", 2.5),
        ("", "def f(x):\n    return x > 7", 7),
        ("", "def f(x):\n    return -4 <= x", -4),
        ("", "def f(x):\n    return x in (1, 31)", 31),
        ("", "def f(x):\n    match x:\n        case 9: return 1", 9),
    ],
)
def test_boundaries_come_from_code_and_instruction(instruction: str, code: str, number: float) -> None:
    assert number in hints.find([code], [], instruction).numbers


def test_what_most_attempts_compare_with_comes_first() -> None:
    codes = ["def f(x):\n    y = 1000\n    return x > 5", "def f(x):\n    return x > 5 or x < 2"]
    assert hints.find(codes, []).numbers[:2] == (5, 2)


def test_texts_come_from_comparisons_methods_and_quotes() -> None:
    found = hints.find(["def f(s):\n    return s == 'yes' or s.startswith('ab')"], [], "Say 'maybe', it's fine.")
    assert set(found.texts) == {"yes", "ab", "maybe"}


def test_negative_numbers_are_left_out_where_the_instruction_excludes_them() -> None:
    assert -1 in values(5, hints.find([], [], "Sum the digits."))
    assert all(each >= 0 for each in values(5, hints.find([], [], "Takes a non-negative integer.")))
    assert any(each < 0 for each in values(-5, Hints(negative=False)))


def test_a_number_that_may_be_a_count_of_steps_stays_small() -> None:
    assert max(values(7, Hints(numbers=(10**9 + 7, 5)))) <= 1_000


@pytest.mark.parametrize(
    ("given_value", "found", "expected"),
    [
        (3, Hints(numbers=(9,)), [9, 8, 10, 0, 1, -1]),
        (1.5, Hints(numbers=(9,)), [9.0, 8.5, 9.5, 0.0]),
        ("ab", Hints(texts=("x",)), ["x", "abx", "", "AB", "ba", "abab", "abé"]),
        ("ab", Hints(numbers=(4,)), ["abab", "aba", "ababa"]),
        ([3, 1], Hints(numbers=(9,)), [[3, 1, 9], [9], [], [3], [1, 3], [3, 1, 3], [3, 3, 3]]),
        ({"b": 2}, Hints(numbers=(9,)), [{"b": 9}, {}]),
        ({4, 2}, NO_HINTS, [set(), {2}]),
        (True, NO_HINTS, [False]),
        ("12", NO_HINTS, ["0", "13"]),
        ("two words", NO_HINTS, ["two", "words two"]),
        (b"ab", NO_HINTS, [b"", b"ba"]),
    ],
)
def test_variants_are_boundaries_edges_and_structures(
    given_value: object, found: Hints, expected: list[object]
) -> None:
    made = values(given_value, found)
    assert all(each in made for each in expected), made


def test_a_record_keeps_its_shape() -> None:
    for each in values(("Ann", 31, [1])):
        assert [type(item) for item in each] == [str, int, list]
    for record in values({"name": "Ann", "age": 31}):
        assert [(key, type(item)) for key, item in record.items()] == [("name", str), ("age", int)]


def test_a_constructor_keeps_its_form() -> None:
    given_value = value(ast.parse("Point(1, y=2)", mode="eval").body, {"Point"})
    made = values(given_value)
    assert Built("Point", (0,), (("y", 2),)) in made
    assert Built("Point", (1,), (("y", 0),)) in made


def test_none_is_tried_only_where_tests_use_it() -> None:
    code = "def f(x, y=None):\n    return x\n"
    without = varied((code, "assert f([1], 2)"))
    assert not any("None" in each.arguments.positional for each in without)
    with_none = [str(each.arguments) for each in varied((code, "assert f([1], 2)\nassert f([3], None)"))]
    assert "[1], None" in with_none


def test_arguments_are_varied_one_at_a_time_and_in_pairs() -> None:
    code = "def f(x, y):\n    return x > 5 and y < 3\n"
    found = {str(each.arguments): each.origin for each in varied((code, "assert f(1, 1)"))}
    assert found["5, 1"] == found["1, 3"] == "boundary"
    assert found["5, 3"] == "combination"


def test_signatures_are_used_where_tests_call_nothing_literally() -> None:
    code = "def f(count: int, words: list[str], extra=None):\n    return count\n"
    found = varied((code, "x = compute()\nassert f(x, x)\n"))
    assert all(len(each.arguments.positional) == 2 and not each.claimed for each in found)
    assert found[0].arguments.positional[1] == "[3, 1, 2]"
    assert varied(("def f(count):\n    return count\n", "assert f(x)")) == []


_PRINTED = """
from codealign.coordinator.agreement.calls import read
from codealign.coordinator.agreement.hints import Hints
from codealign.coordinator.agreement.inputs import vary
code = "def f(xs):\\n    return len(xs)\\n"
for argument in ("{'fig', 'plum', 'pear'}", "{'a': {'b', 'c', None}}", "list({'fig', 'plum', 'pear'})",
                 "dict({('a', 1), ('b', 2), ('c', 3)})", "tuple(frozenset('hello'))", "{('a', 1), ('b', 2)}"):
    print(*vary([read(code, f"assert f({argument}) == 3")], Hints()), sep="\\n")
"""


def test_inputs_do_not_depend_on_the_hashes_of_a_process() -> None:
    def printed(seed: str) -> bytes:
        return subprocess.check_output(
            [sys.executable, "-c", _PRINTED], env={**os.environ, "PYTHONHASHSEED": seed}, timeout=600
        )

    assert len(found := printed("1")) > 1_000
    assert printed("2") == found == printed("3")


def test_inputs_of_tests_are_claimed() -> None:
    attempts = [("def f(x):\n    return x\n", "assert f(1)\nassert f(2)"), ("def f(x):\n    return x\n", "assert f(2)")]
    found = varied(*attempts)
    assert {str(each.arguments) for each in found if each.claimed} == {"1", "2"}
    numbers = inputs.claims(read(*attempts[1]), found)
    assert [str(found[number].arguments) for number in numbers] == ["2"]


def test_the_limit_holds_and_the_beginning_does_not_depend_on_it() -> None:
    attempt = ("def f(xs):\n    return [x for x in xs if x > 3]\n", "assert f([3, 1, 2]) == []")
    assert varied(attempt, limit=10) == varied(attempt)[:10]
    assert len(varied(attempt, limit=10)) == 10


plain = st.recursive(
    st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)
some_hints = st.builds(
    Hints,
    st.lists(st.integers(-20, 20) | st.floats(-20, 20), max_size=4).map(tuple),
    st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple),
    st.booleans(),
)


@given(plain, some_hints)
def test_every_variant_has_the_type_of_what_it_varies(given_value: object, found: Hints) -> None:
    made = variants(given_value, found)
    texts = [source(each.value) for each in made]
    assert all(type(each.value) is type(given_value) for each in made)
    assert len(set(texts)) == len(texts)
    assert source(given_value) not in texts
    assert {each.origin for each in made} <= {BOUNDARY, EDGE, STRUCTURE}


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=5), some_hints)
def test_a_list_of_numbers_stays_one(numbers: list[int], found: Hints) -> None:
    for each in values(numbers, found):
        assert all(type(item) is int for item in each)


@given(plain)
def test_a_source_is_read_back_as_the_value(given_value: object) -> None:
    text = source(given_value)
    try:
        again = parsed(text)
    except NotLiteral:
        return  # too large
    assert again == given_value
    assert source(again) == text
    assert "float(" in text or ast.literal_eval(text) == given_value


@given(st.text(max_size=20))
def test_a_quoted_text_is_the_text(text: str) -> None:
    assert ast.literal_eval(source(text)) == text
    assert "\n" not in source(text)


@given(st.lists(plain, min_size=1, max_size=3), some_hints)
def test_varied_inputs_are_new_and_within_limits(arguments: list[object], found: Hints) -> None:
    call = ", ".join(map(source, arguments))
    reading = read("def f(*xs):\n    return xs\n", f"assert f({call})\n")
    made = vary([reading], found)
    assert len({each.arguments for each in made}) == len(made) <= inputs.LIMIT
    assert all(each.claimed or each.arguments.chars <= inputs.MAX_VARIED_CHARS for each in made)
    assert all(len(each.arguments.positional) == len(arguments) for each in made)
    if reading.calls:
        assert made[0] == Input(reading.calls[0], "tests")
        assert isinstance(made[0].arguments, Arguments)
