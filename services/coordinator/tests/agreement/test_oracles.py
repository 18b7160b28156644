"""Oracles: expectations that hold for other inputs."""

from __future__ import annotations

import pytest

from codealign.coordinator.agreement.calls import read

CODE = "def f(x, y=None):\n    return x\n\ndef own(x):\n    return x\n"


def oracles(tests: str) -> list[tuple[tuple[str, ...], str, int]]:
    return [(each.parameters, each.expression, each.support) for each in read(CODE, tests).oracles]


def test_a_literal_argument_becomes_a_parameter() -> None:
    tests = "assert f([3, 1]) == sorted([3, 1])\nassert f([5]) == sorted([5])\nassert f([]) == []\n"
    assert oracles(tests) == [(("x",), "sorted(x)", 2)]


def test_an_argument_that_hardly_occurs_by_chance_needs_no_second_case() -> None:
    assert oracles("assert f(2737) == [int(d) for d in str(2737)]") == [(("x",), "[int(d) for d in str(x)]", 1)]


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param("assert f(2) == 2 * 2", id="which 2 is which"),
        pytest.param("assert f(10) == 10 + 1", id="a round number"),
        pytest.param("assert f(3) == 3\nassert f(4) == 4", id="no operation"),
        pytest.param("assert f(31) == len('abc')", id="the argument does not occur"),
        pytest.param("assert f(31, 17) == 31 + 1", id="one argument does not occur"),
        pytest.param("assert f([1, 2]) == own([1, 2])", id="code of the answer"),
        pytest.param("assert f([1, 2]) == f([1, 2])", id="the answer itself"),
        pytest.param("assert f([1, 2]) != sorted([1, 2])", id="not equality"),
        pytest.param("assert len(f([1, 2])) == len([1, 2])", id="not about the result"),
    ],
)
def test_what_may_be_chance_is_no_oracle(tests: str) -> None:
    assert oracles(tests) == []


def test_cases_with_other_arguments_decide_which_occurrence_is_the_argument() -> None:
    """Of `f(2)` alone, `x % x` would be one possibility; it does not reproduce the other case."""
    one = "assert f(2) == [n for n in range(2) if n % 2]\n"
    assert oracles(one) == []
    assert oracles(one + one) == []
    other = "assert f(7) == [n for n in range(7) if n % 2]\n"
    assert oracles(one + other) == [(("x",), "[n for n in range(x) if n % 2]", 2)]


def test_a_parameter_is_not_captured_by_a_comprehension() -> None:
    tests = "assert f([3, 4]) == [x for x in [3, 4] if x > 3]"
    assert oracles(tests) == [(("x_",), "[x for x in x_ if x > 3]", 1)]


def test_an_oracle_comes_with_what_it_may_need_of_the_tests() -> None:
    tests = """
import math
from collections import Counter
LIMIT = 3
@functools.cache
def expected(x):  # é
    return math.prod(x) + LIMIT
def check(x):
    assert f(x) == 1
assert f([3, 4]) == expected([3, 4])
"""
    reading = read(CODE, tests)
    assert [each.expression for each in reading.oracles] == ["expected(x)"]
    assert reading.preamble == (
        "import math",
        "from collections import Counter",
        "LIMIT = 3",
        "@functools.cache\ndef expected(x):  # é\n    return math.prod(x) + LIMIT",
    )
