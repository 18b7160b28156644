"""Whether an answer to a task of nano's world is right: its values, compared with those of the task's meaning.

A model wrote the answer, so it must run in the sandbox: `Checks` builds the program and reads the result.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.nano import arguments, functions, truth
from codealign.nano.blocks import Argument, Kind
from codealign.nano.functions import Code, Composition, Names

_DRAWS = 30
"""Number of arguments as nano's own tests have them."""
_WAYS = 6
"""Number of correct functions that must agree on an argument."""
_SHOWN = 200
"""Characters of a wrong value that are kept."""
_NAMES = Names("function", "argument", "element", "elements")
_UNDECIDED = (sb.VERDICT_INFRASTRUCTURE, sb.VERDICT_REFUSED, sb.VERDICT_NO_TESTS, sb.VERDICT_UNSPECIFIED)
_CHECK = f"""\
def _check(number, call, expected):
    try:
        wanted = expected()
    except Exception:
        return
    try:
        got = call()
    except Exception as error:
        got = error
    is_right = got == wanted
    if not is_right:
        print()
        print(number, repr(got)[:{_SHOWN}])
    assert is_right
"""
"""Compares a call with an expression; one without a value checks nothing. Prints the number of a case that fails."""


class Outcome(enum.Enum):
    """Whether an answer is right."""

    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    """The task has no single meaning in nano's world, or the sandbox failed."""


@dataclass(frozen=True)
class Judgement:
    """Whether an answer is right, and if it is not, the first argument that shows it."""

    outcome: Outcome
    argument: str = ""
    """As a literal. Empty: no argument shows it, as for code that does not compile."""
    expected: str = ""
    got: str = ""
    """The value, or what happened in place of one."""


UNKNOWN = Judgement(Outcome.UNKNOWN)


@dataclass(frozen=True)
class Case:
    """A call and the expression for its value."""

    argument: str
    expected: str


@dataclass(frozen=True)
class Checks:
    """Comparisons of a function's values with expressions."""

    function: str
    cases: Sequence[Case]
    are_ours: bool = True
    """Whether the expressions are the recipe's own. Otherwise they may themselves raise, loop or end the program."""

    def program(self, code: str) -> sb.Program:
        """Return the program that checks an answer."""
        lines = (
            f"_check({number}, lambda: {self.function}({case.argument}), lambda: {case.expected})\n"
            for number, case in enumerate(self.cases)
        )
        return sb.Program(language=sb.LANGUAGE_PYTHON, code=code, tests=_CHECK + "".join(lines))

    def judgement(self, result: sb.Result) -> Judgement:
        """Return what a result of the program says about the answer."""
        if result.verdict == sb.VERDICT_PASSED:
            return Judgement(Outcome.RIGHT)
        if result.verdict == sb.VERDICT_FAILED_ASSERTION:
            printed = result.stdout.data.decode("utf-8", "replace").rstrip("\n").rpartition("\n")[2]
            number, _, got = printed.partition(" ")
            if number.isdecimal() and int(number) < len(self.cases):
                case = self.cases[int(number)]
                return Judgement(Outcome.WRONG, case.argument, case.expected, got)
        elif result.verdict in _UNDECIDED or not self.are_ours:
            return UNKNOWN
        return Judgement(Outcome.WRONG, got=result.detail)


def checks(task: str) -> Checks | None:
    """Return the checks of a task's answers, or None if its meaning is unknown. The same task gives the same checks."""
    meaning = truth.parse(task)
    if meaning is None:
        return None
    cases = tuple(_cases(meaning.composition))
    return Checks(meaning.function, cases) if cases else None


def judge(task: str, code: str, execute: Callable[[sb.Program], sb.Result]) -> Judgement:
    """Return whether an answer is right.

    Args:
        task: The task.
        code: The answer's code.
        execute: Runs a program in the sandbox.
    """
    found = checks(task)
    return found.judgement(execute(found.program(code))) if found else UNKNOWN


def _cases(composition: Composition) -> Iterator[Case]:
    """Return the calls on whose value all correct functions agree; other arguments are outside of the task."""
    constants = (composition.filter_constant, composition.map_constant, composition.reduce_constant)
    dice = random.Random(f"{composition.key} {constants}")  # noqa: S311 - not used for secrets
    ways = _ways(dice, composition)
    for argument in _arguments(dice, composition, [each for each in constants if each is not None]):
        other = functions.write_other(composition, argument)
        try:
            values = [way(argument) for way in ways]
            if other is not None:
                values.append(eval(other))  # noqa: S307 - the recipe's own text
        except functions.FAULTS:
            continue
        if all(value == values[0] for value in values):
            yield Case(repr(argument), repr(values[0]))


def _ways(dice: random.Random, composition: Composition) -> list[Callable[[object], object]]:
    """Return several correct functions."""
    scope: dict[str, Any] = {}
    bodies = sorted({functions.write_body(dice, composition, _NAMES).body for _ in range(_WAYS)})
    for number, body in enumerate(bodies):
        names = replace(_NAMES, function=f"way_{number}")
        exec(functions.define(names, Code(body, is_right=True)), scope)  # noqa: S102 - the recipe's own text
    return [scope[f"way_{number}"] for number in range(len(bodies))]


def _arguments(dice: random.Random, composition: Composition, constants: Sequence[int | str]) -> list[object]:
    """Return distinct arguments that the task allows."""
    source = composition.source
    is_small = (
        source.kind is Kind.LETTER if source.argument is Argument.TEXT else max(source.integers) <= arguments.SMALL
    )
    found = arguments.draw(dice, source.argument, constants, is_small=is_small, keeps=_keeps(composition))
    found += [functions.draw_argument(dice, composition) for _ in range(_DRAWS)]
    if source.name == "divisors":
        found.remove(0)  # has infinitely many
    return list({repr(argument): argument for argument in found}.values())


def _keeps(composition: Composition) -> Callable[[object], bool]:
    """Return whether the function keeps an element, or a function would that people confuse with it.

    True for a text or a number that is not one of its elements.
    """
    kept = composition.filter
    if kept is functions.EVERYTHING:
        return lambda _: True
    conditions = (text.format(x="x", k=composition.filter_constant) for text in (kept.code[0], kept.wrong) if text)
    holds = eval(f"lambda x: {' or '.join(f'({each})' for each in conditions)}")  # noqa: S307 - the recipe's own text
    are_numbers = composition.source.kind is Kind.NUMBER
    return lambda element: isinstance(element, int) != are_numbers or holds(element)
