"""Cases: what tests assert of single calls."""

from __future__ import annotations

import dataclasses
import json

import pytest

from codealign.coordinator.agreement.calls import Case, Reading, common_subject, read, subject_for

CODE = """
def scale(x, by=2):
    return x * by

def helper(x):
    return x

async def later(x):
    return x

class Square:
    def __init__(self, side):
        self.side = side
    def area(self):
        return self.side ** 2

class Solution:
    def run(self, items):
        return items
    @staticmethod
    def of(x):
        return x
"""


def only_case(tests: str) -> Case:
    (case,) = read(CODE, tests).cases
    return case


@pytest.mark.parametrize(
    ("tests", "arguments", "relation", "expectation", "view"),
    [
        ("assert scale(2) == 4", "2", "==", "4", ""),
        ("assert 4 == scale(2)", "2", "==", "4", ""),
        ("assert 3 < scale(2)", "2", ">", "3", ""),
        ("assert scale('a', 0) != 'a', 'message'", "'a', 0", "!=", "'a'", ""),
        ("assert scale(2) is None", "2", "is", "None", ""),
        ("assert scale([])", "[]", "true", "", ""),
        ("assert not scale(0)", "0", "false", "", ""),
        ("assert abs(scale(0.1) - 0.2) < 1e-9", "0.1", "close", "0.2", ""),
        ("assert math.isclose(0.2, scale(0.1), rel_tol=1e-6)", "0.1", "close", "0.2", ""),
        ("assert scale(1) in (2, 3)", "1", "in", "(2, 3)", ""),
        ("assert scale(1) not in {2}", "1", "not in", "{2}", ""),
        ("assert sorted(scale([2, 1])) == [1, 2]", "[2, 1]", "==", "[1, 2]", "sorted(_)"),
        ("assert scale([2, 1])[0] == 2", "[2, 1]", "==", "2", "_[0]"),
        ("assert scale(x=1, by=3) == 3", "1, 3", "==", "3", ""),
        ("assert scale(*[1, 3]) == 3", "1, 3", "==", "3", ""),
        ("assert scale(**{'x': 1}) == 2", "1", "==", "2", ""),
        ("assert scale(deque([1])) == 2", "collections.deque([1])", "==", "2", ""),
        ("assert scale(set(), float('inf')) == 2", "set(), float('inf')", "==", "2", ""),
        ("assert scale(Square(2)) == 2", "Square(2)", "==", "2", ""),
        ("assert scale([0] * 3, -1) == 2", "[0, 0, 0], -1", "==", "2", ""),
        ("import asyncio\nassert asyncio.run(later(1)) == 2", "1", "==", "2", ""),
        ("async def test():\n    assert await later(1) == 2", "1", "==", "2", ""),
        ("assert Solution().run([1]) == [1]", "[1]", "==", "[1]", ""),
        ("assert Solution.of(3) == 3", "3", "==", "3", ""),
        ("assert Square(2).area() == 4", "2", "==", "4", ""),
        ("class T(TestCase):\n    def test(self):\n        self.assertEqual(scale(1), 2)", "1", "==", "2", ""),
        ("T().assertIsNone(scale(1))", "1", "is", "None", ""),
        ("T().assertAlmostEqual(scale(1), 2.0, places=3)", "1", "close", "2.0", ""),
        ("T().assertRaises(ValueError, scale, None)", "None", "raises", "ValueError", ""),
        ("with pytest.raises(KeyError):\n    scale({})", "{}", "raises", "KeyError", ""),
        ("def test():\n    data = [1, 2]\n    result = scale(data)\n    assert result == 3", "[1, 2]", "==", "3", ""),
    ],
)
def test_each_form_of_an_assertion_is_a_case(
    tests: str, arguments: str, relation: str, expectation: str, view: str
) -> None:
    case = only_case(tests)
    assert (str(case.arguments), case.relation, case.expectation, case.view) == (arguments, relation, expectation, view)


def test_the_subject_is_what_most_assertions_call() -> None:
    reading = read(CODE, "assert helper(1) == 1\nassert scale(1) == 2\nassert scale(2) == 4\n")
    assert reading.subject is not None
    assert (reading.subject.callee, reading.subject.view) == ("scale", "")
    assert [(each.name, each.default) for each in reading.subject.parameters] == [("x", ""), ("by", "2")]
    assert (len(reading.cases), reading.assertions, reading.whole) == (2, 3, 1)


def test_a_class_is_under_test_through_what_is_looked_at() -> None:
    reading = read(CODE, "assert Square(2).area() == 4\nassert Square(3).area() == 9\nassert Square(1).side == 1\n")
    assert reading.subject is not None
    assert (reading.subject.callee, reading.subject.view, reading.subject.name) == ("Square", "_.area()", "Square")
    assert [str(each) for each in reading.calls] == ["2", "3"]


def test_conditions_in_a_conjunction_and_rows_of_a_table_are_cases_of_their_own() -> None:
    tests = """
assert scale(0) == 0 and scale(1) == 2
for x, want in [(2, 4), (3, 6)]:
    assert scale(x) == want
CASES = {4: 8}
for x, want in CASES.items():
    assert scale(x) == want
for i in range(5, 7):
    assert scale(i) == i * 2
assert all([scale(7) == 14, scale(8) == 16])
"""
    reading = read(CODE, tests)
    assert [str(case.arguments) for case in reading.cases] == [str(number) for number in range(9)]
    assert (reading.assertions, reading.whole) == (9, 0)


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param("data = [1]\ndata.append(2)\nassert scale(data) == 3", id="changed by a method"),
        pytest.param("data = [1]\nhelper(data)\nassert scale(data) == 3", id="perhaps changed by a call"),
        pytest.param("n = 1\nif flag:\n    n = 2\nassert scale(n) == 2", id="assigned in a branch"),
        pytest.param("n = 1\nfor n in numbers:\n    pass\nassert scale(n) == 2", id="assigned by a loop"),
        pytest.param("n = 1\nn += 1\nassert scale(n) == 2", id="changed in place"),
        pytest.param("data = [1]\ndata[0] = 5\nassert scale(data) == 3", id="an item assigned"),
        pytest.param("def check(n):\n    assert scale(n) == 2", id="a parameter"),
        pytest.param("s = Square(1)\nassert scale(s.area()) == 2", id="no literal"),
        pytest.param("assert scale(scale(1)) == 2", id="a call of a call"),
        pytest.param("assert [x for x in [1] if scale(x)]", id="a variable of a comprehension"),
        pytest.param("x = 1\nassert [scale(x) for x in range(3)] == []", id="a shadowed name"),
        pytest.param("s = Square(2)\nassert s.area() == 4", id="an object that may have changed"),
        pytest.param("assert scale(1) == f'{2}'", id="an f-string, which Pythons print differently"),
    ],
)
def test_what_is_not_certain_is_left_to_executing_the_tests(tests: str) -> None:
    reading = read(CODE, tests)
    assert reading.cases == ()
    assert reading.whole == reading.assertions == 1


def test_an_argument_counts_even_if_its_assertion_is_no_case() -> None:
    tests = "s = Square(2)\nassert s.area() == 4\nwarm = Square(3).area()\n"
    assert [str(each) for each in read(CODE, tests).calls] == ["2", "3"]


@pytest.mark.parametrize(
    ("code", "tests", "reason"),
    [
        ("def f(", "assert f(1)", "do not compile"),
        ("def f(x): return x", "assert f(1", "do not compile"),
        ("def f(x): return x", "assert 1 == 1", "call nothing"),
        ("def f(x): return x", "assert f(1)\n" * 4_000, "more than"),
    ],
)
def test_a_reading_without_subject_says_why(code: str, tests: str, reason: str) -> None:
    reading = read(code, tests)
    assert reading.subject is None
    assert reason in reading.reason


def test_attempts_are_called_by_their_common_subject_where_they_define_it() -> None:
    readings = [
        read("def area(x): return x\ndef other(x): return x", "assert other(1) == 1"),
        read("def area(x): return x", "assert area(1) == 1"),
        read("def area(x): return x", "assert area(2) == 2"),
        read("def surface(x): return x", "assert surface(2) == 2"),
        read("def area(x): return x", "assert 1"),
    ]
    common = common_subject(readings)
    assert common is not None
    called = [subject_for(reading, common) for reading in readings]
    assert [each.callee if each else "" for each in called] == ["area", "area", "area", "surface", "area"]
    assert common_subject([Reading(None)]) is None


def test_a_reading_is_made_of_plain_fields() -> None:
    reading = read(CODE, "assert scale([3, 4]) == [x * 2 for x in [3, 4]]")
    assert json.loads(json.dumps(dataclasses.asdict(reading)))["cases"][0]["relation"] == "=="
