from __future__ import annotations

import random

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.nano import examples, functions, judgement, varied
from codealign.nano.functions import Composition, Names
from codealign.nano.judgement import Judgement, Outcome, judge
from trainer.nano.tests.executing import execute

SUM = "Write a function `f(p)` that returns the sum of the numbers in `p` that are greater than 3."
LARGEST = (
    "Write a function `f(p)` that returns the largest of the squares of the numbers in `p`, or 0 if there are none."
)
DRAWS = 60


def differs(composition: Composition, names: Names, code: str) -> bool:
    """Return whether any of many arguments shows that a function is wrong."""
    dice = random.Random(1)
    for _ in range(500):
        argument = functions.draw_argument(dice, composition)
        try:
            if functions.call(code, names.function, argument) != functions.evaluate(composition, argument):
                return True
        except functions.FAULTS:
            return True
    return False


def test_a_right_answer_is_right_and_a_wrong_one_is_wrong() -> None:
    dice = random.Random(2)
    wrong = 0
    for _ in range(DRAWS):
        composition = functions.draw(dice)
        names = functions.draw_names(dice, composition)
        task = examples.write_instruction(dice, composition, names)
        for share in (0.0, 0.7):
            body = functions.write_body(dice, composition, names, share)
            code = functions.define(names, body)
            found = judge(task, code, execute)
            if body.is_right:
                assert found == Judgement(Outcome.RIGHT), (task, code)
            elif differs(composition, names, code):
                wrong += 1
                assert found.outcome is Outcome.WRONG, (task, code)
                assert found.argument
    assert wrong > DRAWS / 3


@pytest.mark.parametrize(
    ("task", "body", "argument", "expected", "got"),
    [
        (SUM, "return sum(x for x in p if x >= 3)", "[3]", "0", "3"),
        (SUM, "return sum(p)", "[-21]", "0", "-21"),
        (SUM, "return None", "[]", "0", "None"),
        (LARGEST, "return max(x * x for x in p)", "[]", "0", "ValueError"),
        (LARGEST, "return max(p, default=0)", "[-21]", "441", "-21"),
    ],
)
def test_a_wrong_answer_comes_with_the_first_argument_that_shows_it(
    task: str, body: str, argument: str, expected: str, got: str
) -> None:
    found = judge(task, f"def f(p):\n    {body}\n", execute)
    assert (found.outcome, found.argument, found.expected) == (Outcome.WRONG, argument, expected)
    assert found.got.startswith(got)


@pytest.mark.parametrize("code", ["def g(p):\n    return 0\n", "def f(:\n", "raise ValueError\n", ""])
def test_code_without_the_function_is_wrong(code: str) -> None:
    found = judge(SUM, code, execute)
    assert found.outcome is Outcome.WRONG
    assert "Error" in found.got


def test_an_answer_to_an_unknown_task_is_not_executed() -> None:
    def fail(program: sb.Program) -> sb.Result:
        raise AssertionError("nothing may run")

    assert judge("Write a function `f(p)` that returns a nice text.", "def f(p): ...", fail) == judgement.UNKNOWN


@pytest.mark.parametrize("verdict", [sb.VERDICT_INFRASTRUCTURE, sb.VERDICT_REFUSED])
def test_a_fault_of_the_sandbox_says_nothing(verdict: sb.Verdict.ValueType) -> None:
    assert judge(SUM, "def f(p): ...", lambda _: sb.Result(verdict=verdict)) == judgement.UNKNOWN


@pytest.mark.parametrize("verdict", [sb.VERDICT_TIMED_OUT, sb.VERDICT_EXITED_EARLY, sb.VERDICT_OUT_OF_MEMORY])
def test_an_answer_that_does_not_return_is_wrong(verdict: sb.Verdict.ValueType) -> None:
    found = judge(SUM, "def f(p): ...", lambda _: sb.Result(verdict=verdict, detail="why"))
    assert found == Judgement(Outcome.WRONG, got="why")


def test_arguments_cover_boundaries_and_are_the_same_each_time() -> None:
    found = judgement.checks(SUM)
    assert found == judgement.checks(SUM)
    assert found is not None
    arguments = {case.argument for case in found.cases}
    assert {"[]", "[0]", "[-1]", "[2]", "[3]", "[4]"} <= arguments
    assert len(arguments) == len(found.cases) > 50


def test_a_text_has_several_words_where_the_task_is_about_them() -> None:
    found = judgement.checks("Write a function `f(p)` that returns the number of the words in the text `p`.")
    assert found is not None
    assert max(case.argument.count(" ") for case in found.cases) > 3
    letters = judgement.checks("Write a function `f(p)` that returns the number of the letters in the word `p`.")
    assert letters is not None
    assert all(" " not in case.argument for case in letters.cases)


def test_arguments_that_no_task_allows_are_left_out() -> None:
    divisors = judgement.checks("Write a function `f(p)` that returns the sum of the divisors of `p`.")
    first = judgement.checks("Write a function `f(p)` that returns a list of the first letters of the words in `p`.")
    assert divisors is not None
    assert first is not None
    assert "0" not in {case.argument for case in divisors.cases}
    assert all("''" not in case.argument for case in first.cases)


def test_most_tests_of_this_world_can_be_varied_and_agree_with_right_code() -> None:
    dice = random.Random(3)
    agreed = found_wrong = unvaried = 0
    for _ in range(DRAWS):
        example = examples.draw_example(dice, clean=True)
        checks = varied.checks(example.tests)
        if checks is None:
            unvaried += 1
            continue
        right, wrong = (functions.write_body(dice, example.composition, example.names, share) for share in (0.0, 1.0))
        found = checks.judgement(execute(checks.program(functions.define(example.names, right))))
        assert found.outcome is not Outcome.WRONG, (example.tests, found)
        agreed += found.outcome is Outcome.RIGHT
        code = functions.define(example.names, wrong)
        if not wrong.is_right and differs(example.composition, example.names, code):
            found_wrong += checks.judgement(execute(checks.program(code))).outcome is Outcome.WRONG
    assert unvaried < DRAWS / 2
    assert agreed > DRAWS / 4
    assert found_wrong > DRAWS / 6


CODE = "def f(p):\n    return [x for x in p if x > 3]\n"


@pytest.mark.parametrize(
    ("tests", "outcome"),
    [
        ("assert f([1, 5]) == [x for x in [1, 5] if x > 3]", Outcome.RIGHT),
        ("assert f([1, 5]) == [x for x in [1, 5] if x >= 3]", Outcome.WRONG),
        ("assert f([1, 5]) == [5]\nassert f([1, 5]) == [x for x in [1, 5] if x != 1]", Outcome.WRONG),
        ("assert f([1, 5]) == [x + 0 // (x - 4) for x in [1, 5] if x > 3]", Outcome.RIGHT),
    ],
)
def test_a_test_and_its_code_that_differ_elsewhere_are_found(tests: str, outcome: Outcome) -> None:
    checks = varied.checks(tests)
    assert checks is not None
    assert checks.judgement(execute(checks.program(CODE))).outcome is outcome


@pytest.mark.parametrize(
    "tests",
    [
        "",
        "assert f([1, 5]) == [5]",
        "assert f([1, 5]) == f([1, 5])",
        "assert f([1, 5]) == [1, 5]",
        "assert f(15) == [13, 14, 15]",
        "assert f([]) == sorted([])",
        "assert f(3) == 3 * 3",
        "assert f([1, 5], 3) == sorted([1, 5])",
        "assert f([1, 5]) != sorted([1, 5])",
        "assert f([1, 5]) == sorted([1, 5])\nassert g([1, 5]) == sorted([1, 5])",
        "assert f([[1], [2]]) == sorted([[1], [2]])",
        "assert f(",
    ],
)
def test_tests_without_an_expression_of_the_argument_cannot_be_varied(tests: str) -> None:
    assert varied.checks(tests) is None


def test_an_expression_that_loops_or_ends_the_program_says_nothing() -> None:
    checks = varied.checks("assert f([1, 5]) == sorted([1, 5])")
    assert checks is not None
    for verdict in (sb.VERDICT_TIMED_OUT, sb.VERDICT_EXITED_EARLY, sb.VERDICT_NO_TESTS):
        assert checks.judgement(sb.Result(verdict=verdict)) == judgement.UNKNOWN
