"""Problems become cases of right and wrong attempts, and a judge's choices are counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.evaluation.problems import CallTests, Part, Problem
from tests.bench.agreeing import Run
from tests.bench.weak_tests import (
    Asked,
    Case,
    Kept,
    case_of,
    measure,
    passing,
    problems_of,
    solution_key,
    table,
    variants,
    weak_tests,
)
from tests.evaluation.conftest import benchmark_data  # noqa: F401 (a fixture)
from trainer.nano.tests.executing import execute

SOLUTION = "def f(x, y):\n    if x > y:\n        return x + 1\n    return y\n"


def problem(solution: str = SOLUTION, rule: str = "equal") -> Problem:
    tests = CallTests((Part("base", ([1, 2], [3, 2])), Part("plus", ([2, 2],))), solution, rule=rule)
    return Problem("mine", "Mine/0", "def f(x, y):\n", "f", solution, tests)


def run(programs: Sequence[sb.Program], limits: Sequence[sb.Limits] = ()) -> list[sb.Result]:
    """Execute programs of this file."""
    return [execute(program) for program in programs]


def test_weak_tests_are_the_first_base_case() -> None:
    assert weak_tests(problem()) == "assert f(1, 2) == 2\n"


@pytest.mark.parametrize(
    "given",
    [problem(rule="set"), problem("def f(x, y):\n    return object()\n"), problem("def f(x, y):\n    return {x}, f\n")],
)
def test_what_no_literal_says_is_left_out(given: Problem) -> None:
    assert weak_tests(given) is None


def test_variants_begin_with_the_canonical_solution_and_differ() -> None:
    everything = variants(problem(), 100)
    assert everything[0] == SOLUTION
    assert len(set(everything)) == len(everything) > 3
    some = variants(problem(), 3)
    assert len(some) == 4
    assert set(some) < set(everything)
    assert variants(problem(), 0) == [SOLUTION]


def test_a_case_has_right_attempts_and_then_wrong_ones() -> None:
    codes = [SOLUTION, "wrong 1", "right 1", "wrong 2", "unknown", "wrong 3", "right 2"]
    right = {solution_key(problem(), code): "wrong" not in code for code in codes if code != "unknown"}
    case = case_of(problem(), "tests", right, codes, 2)
    assert case is not None
    assert case.asked == Asked("def f(x, y):\n", "tests", [SOLUTION, "right 1", "right 2", "wrong 1", "wrong 2"])
    assert case.are_right == [True, True, True, False, False]
    assert case_of(problem(), "tests", right, [SOLUTION, "right 1"], 2) is None, "nothing is wrong"
    unproved = right | {solution_key(problem(), SOLUTION): False}
    assert case_of(problem(), "tests", unproved, codes, 2) is None, "the canonical solution fails here"


CASE = Case(
    Asked(
        "",
        "assert f(2) == 4",
        [
            "def f(x): return x * x",
            "def f(x): return x ** 2",
            "def f(x): return x + x",
            "def f(x): return 4",
            "def f(x): return x",
        ],
    ),
    [True, True, False, False, False],
)


def test_what_passes_the_weak_tests_is_the_baseline() -> None:
    assert passing(CASE.asked, run) == [Kept(0), Kept(1), Kept(2), Kept(3)]
    found = measure("baseline", passing, [CASE], run)
    assert (found.wrong, found.wrong_passing, found.found) == (3, 2, 0)
    assert (found.right, found.right_passing, found.alarms) == (2, 2, 0)
    assert (found.added, found.false_tests) == (0, 0)


def test_a_judge_is_measured_by_what_it_keeps_and_adds() -> None:
    def judge(asked: Asked, run: Run) -> list[Kept]:
        assert asked == CASE.asked
        return [Kept(0, "assert f(3) == 9"), Kept(2, "assert f(3) == 6"), Kept(4)]

    found = measure("mine", judge, [CASE], run)
    assert (found.wrong_passing, found.found) == (2, 1), "it keeps x + x, and drops 4"
    assert (found.right_passing, found.alarms) == (2, 1), "it drops x ** 2"
    assert (found.added, found.false_tests) == (2, 1)
    head, _, line = table([found]).splitlines()
    assert head.count("|") == line.count("|")
    assert "| 1 of 2: 50.0% (9.5% to 90.5%) |" in line


def test_the_published_problems_have_weak_tests(benchmark_data: Path) -> None:  # noqa: F811
    found = list(problems_of(benchmark_data, 20))
    assert len(found) > 15
    for each, tests in found:
        assert execute(sb.Program(code=each.canonical_solution, tests=tests)).verdict == sb.VERDICT_PASSED
