"""A comparison executes nothing twice, and nothing whose result is known. The texts are ours."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import comparing
from codealign.coordinator.agreement.comparing import Answer
from codealign.coordinator.agreement.trials import INPUTS, MUTANT, MUTANTS, TESTS, Trial, once, passes
from fakes.programs import executed

TASK = "Write `f(x)` that returns the double of `x`."
DOUBLE, SUM, SQUARE = (f"def f(x):\n    return {text}\n" for text in ("2 * x", "x + x", "x ** 2"))
TWO, THREE, WRONG = (f"assert f({x}) == {y}\n" for x, y in ((2, 4), (3, 6), (5, 25)))


def run_program(program: sb.Program) -> sb.Result:
    """Execute one of this file's own programs."""
    passed, output = executed(program)
    verdict = sb.VERDICT_PASSED if passed else sb.VERDICT_FAILED_ASSERTION
    return sb.Result(verdict=verdict, stdout=sb.Output(data=output))


def answers(*attempts: tuple[str, str]) -> list[Answer]:
    """Return attempts with the verdicts on their own tests."""
    return [
        Answer(code, tests, passed := passes(run_program(sb.Program(code=code, tests=tests))), passed is True)
        for code, tests in attempts
    ]


def evidence(given: Sequence[Answer]) -> tuple[list[tuple[bool | None, ...]], Counter[str]]:
    """Return which tests each answer passes, and the executed trials by purpose."""
    count = Counter[str]()

    async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
        assert len({each.key for each in trials}) == len(trials)
        count.update(each.purpose for each in trials)
        return [run_program(each.program) for each in trials]

    found = asyncio.run(comparing._Comparison(TASK, given).evidence(once(execute)))
    return [each.passed for each in found], count


@pytest.mark.parametrize(
    ("attempts", "observed", "pairs"),
    [
        ([(DOUBLE, TWO), (SUM, THREE)], 2, 2),
        # The second attempt is the first one again.
        ([(DOUBLE, TWO), (DOUBLE, TWO), (SUM, THREE)], 2, 2),
        ([(DOUBLE, TWO)] * 4, 1, 0),
        # The third attempt tells what the first answer does with the tests of the second.
        ([(DOUBLE, TWO), (SUM, THREE), (DOUBLE, THREE)], 2, 1),
        ([(DOUBLE, TWO), (SQUARE, TWO), (SQUARE, WRONG), (DOUBLE, WRONG)], 2, 0),
        # Other texts are other programs, even if they mean the same.
        ([(DOUBLE, TWO), (f"{DOUBLE}# twice\n", TWO)], 2, 0),
        ([(DOUBLE, TWO), (DOUBLE, f"{TWO}# twice\n")], 1, 0),
        ([(DOUBLE, TWO), (f"{DOUBLE}# twice\n", THREE)], 2, 2),
    ],
)
def test_nothing_is_executed_twice_and_every_pair_has_its_result(
    attempts: list[tuple[str, str]], observed: int, pairs: int
) -> None:
    found, count = evidence(answers(*attempts))
    expected = [
        tuple(run_program(sb.Program(code=code, tests=tests)).verdict == sb.VERDICT_PASSED for _, tests in attempts)
        for code, _ in attempts
    ]
    assert found == expected
    assert (count[INPUTS], count[TESTS]) == (observed, pairs)


def test_an_undecided_verdict_is_not_asked_for_again_but_a_decided_one_on_the_same_texts_counts() -> None:
    undecided = Answer(DOUBLE, TWO, None, eligible=False)
    found, count = evidence([undecided, undecided])
    assert found == [(None, None), (None, None)]
    assert count[TESTS] == 0
    found, count = evidence([undecided, *answers((DOUBLE, TWO))])
    assert found == [(None, True), (True, True)]
    assert count[TESTS] == 0


@pytest.mark.parametrize("others", [[], [(SUM, THREE)], [(SQUARE, TWO)]])
def test_a_fault_at_the_inputs_of_a_passing_answer_does_not_count_against_it(others: list[tuple[str, str]]) -> None:
    given = answers((DOUBLE, "assert f(2) == 4\nassert f(3) == 6\n"), *others)

    async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
        failing = (each.purpose == INPUTS and each.answer == 0 for each in trials)
        return [None if fails else run_program(each.program) for each, fails in zip(trials, failing, strict=True)]

    found = asyncio.run(comparing.compare(TASK, given, execute))
    assert found is not None
    assert found.best == 0
    assert not found.judgement.contested


LETTERS = "\n    return [each for each in {0} if each > 'b']\n"


@pytest.mark.parametrize(
    ("letters", "added"), [("dict.fromkeys(words)", True), ("sorted(set(words))", True), ("list(set(words))", False)]
)
def test_no_assertion_depends_on_the_order_of_a_set(letters: str, added: bool) -> None:
    """The order is the same in every sandbox, but not elsewhere."""
    body = LETTERS.format(letters)
    tests = "assert f(['c', 'd', 'a']) and 'x'\nassert f(['e']) == ['e']\n"
    given = answers((f"def f(words):{body}", tests), (f"def f(words):\n    words = list(words){body}", tests))
    found = asyncio.run(comparing.compare(TASK, given, _executed))
    assert found is not None
    assert any(result.killed is False for _, result in found.mutants)
    assert bool(found.tests) == added


STACK = """
class Stack:
    def __init__(self):
        self.{0} = []
    def push(self, x):
        self.{0}.append(x)
    def pop(self):
        return self.{0}.pop({1})
    def is_empty(self):
        return not self.{0}
"""
PUSHED = (
    "s = Stack()\nassert s.is_empty()\ns.push(1)\nassert s.pop() == 1\n",
    "s = Stack()\ns.push(2)\ns.push(3)\nassert s.pop() == 3\n",
)


def test_objects_that_are_used_step_by_step_are_compared_by_the_tests_alone() -> None:
    """How an answer names its attributes says nothing about it."""
    names = (("items", ""), ("stack", ""), ("_items", ""), ("items", "0"))
    given = answers(*((STACK.format(*each), PUSHED[n % 2]) for n, each in enumerate(names[:3])))
    given += answers((STACK.format(*names[3]), PUSHED[0]))
    found = asyncio.run(comparing.compare("Write a stack.", given, _executed))
    assert found is not None
    assert found.judgement.classes == ((0, 1, 2), (3,))
    assert found.best == 0


async def _executed(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
    return [run_program(each.program) for each in trials]


def test_mutants_together_and_one_by_one_give_the_same_judgement() -> None:
    given = answers((DOUBLE, "assert f(0) == 0\n"), (SUM, "assert f(0) >= 0\n"), (SQUARE, TWO))

    def compared(*, together: bool) -> tuple[object, Counter[str]]:
        count = Counter[str]()

        async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
            count.update(each.purpose for each in trials)
            return [run_program(each.program) for each in trials]

        return asyncio.run(comparing.compare(TASK, given, execute, together=together)), count

    (common, fewer), (alone, more) = compared(together=True), compared(together=False)
    assert common == alone
    assert (fewer[MUTANTS], fewer[MUTANT]) == (1, 0)
    assert more[MUTANTS] == 0
    assert more[MUTANT] > 3
    assert fewer.total() == more.total() - more[MUTANT] + 1


def test_an_outage_does_not_make_attempts_contradict_each_other() -> None:
    """Of the second answer nothing is known but that it passes its own tests: it speaks against no other."""
    given = answers((DOUBLE, "assert f(2) == 4\nassert f(3) == 6\n"), (SUM, THREE))

    async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
        away = (each.answer == 1 or each.other == 1 for each in trials)
        return [None if fails else run_program(each.program) for each, fails in zip(trials, away, strict=True)]

    found = asyncio.run(comparing.compare(TASK, given, execute))
    assert found is not None
    assert (found.best, found.judgement.contested) == (0, False)
    assert found.judgement.classes == ((0,),)
