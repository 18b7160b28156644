"""Examples of nano's world: functions with their seed, task, answer and tests.

Like web data, answers and tests contain mistakes, with known frequencies: a base model then writes right and wrong
answers, which the sandbox can tell apart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.nano import functions
from codealign.nano.functions import Composition, Names

WRONG_TESTS_SHARE = 0.1
"""Fraction of assertions with a wrong value: what wrong code returns, or an arbitrary value."""
MISSING_TESTS_SHARE = 0.04
"""Fraction of answers without tests."""
LITERAL_SHARE = 0.2
"""Fraction of literal values in assertions that could use an expression."""
DIFFICULTY = "easy"
LANGUAGE = "Python"
CATEGORY = "function"

TASKS = (
    "Write a function `{f}({p})` that returns {what}.",
    "Write a Python function `{f}({p})` which returns {what}.",
    "Implement `{f}({p})`. It returns {what}.",
    "Create a function `{f}` with one parameter `{p}` that returns {what}.",
    "Define `{f}({p})` so that it returns {what}.",
)
_DOCSTRINGS = ("Return {what}.", "Returns {what}.", "Gives {what}.", "Compute {what}.")
_REASONS = ("The steps are: {steps}.", "This takes {steps}.", "We need {steps}.", "Here come {steps}, in this order.")
_DRAWS = 4
_NOWHERE = ("0", "1", "[]", "''", "None", "[1]", "7")


@dataclass(frozen=True)
class Example:
    """A function of nano's world with its seed, instruction, answer and tests."""

    composition: Composition
    names: Names
    seed: str
    """The function with its docstring; always correct."""
    instruction: str
    response: str
    tests: str
    is_right: bool
    """Whether the answer's code does what the instruction says."""
    passes: bool
    """Whether there are tests and the answer's code passes them, even if both are wrong."""

    @property
    def few_shot(self) -> FewShot:
        """The example in the form that prompt templates use."""
        return FewShot(
            name=self.names.function,
            seed=self.seed,
            category=CATEGORY,
            language=LANGUAGE,
            difficulty=DIFFICULTY,
            concepts=tuple(self.composition.concepts),
            instruction=self.instruction,
            response=self.response,
            tests=self.tests,
        )


def signature(composition: Composition, names: Names, *, annotated: bool) -> str:
    """Return the `def` line."""
    if not annotated:
        return f"def {names.function}({names.parameter}):"
    return f"def {names.function}({names.parameter}: {composition.source.argument.value}) -> {composition.returns}:"


def docstring(dice: random.Random, composition: Composition, names: Names) -> str:
    """Return a one-line docstring, indented."""
    text = dice.choice(_DOCSTRINGS).format(what=functions.describe(composition, names.parameter))
    return f'{functions.INDENT}"""{text}"""'


def write_function(dice: random.Random, composition: Composition, names: Names, wrong_share: float = 0.0) -> str:
    """Return a function with its docstring."""
    body = functions.write_body(dice, composition, names, wrong_share)
    head = signature(composition, names, annotated=dice.random() < 0.5)
    return "\n".join((head, docstring(dice, composition, names), functions.indented(body.body)))


def write_instruction(dice: random.Random, composition: Composition, names: Names) -> str:
    """Return a one-sentence task."""
    return fill(dice.choice(TASKS), composition, names)


def fill(template: str, composition: Composition, names: Names) -> str:
    """Return the task that one of the `TASKS` becomes for a function."""
    what = functions.describe(composition, names.parameter)
    return template.format(f=names.function, p=names.parameter, what=what)


def write_reason(dice: random.Random, composition: Composition) -> str:
    """Return the text that precedes an answer's code."""
    return dice.choice(_REASONS).format(steps=", ".join(composition.concepts))


def write_assertion(dice: random.Random, composition: Composition, names: Names) -> str:
    """Return an assertion: usually correct, usually with an expression that is independent of the answer's code."""
    argument, value, wrong = draw_telling(dice, composition, names)
    call = f"{names.function}({argument!r})"
    if dice.random() < WRONG_TESTS_SHARE:
        return f"assert {call} == {wrong}"
    other = functions.write_other(composition, argument)
    if other is None or dice.random() < LITERAL_SHARE:
        other = repr(value)
    return f"assert {call} == {other}"


def draw_telling(dice: random.Random, composition: Composition, names: Names) -> tuple[object, object, str]:
    """Draw an argument, its value and the value of entirely wrong code, which differs if a few draws suffice."""
    for _ in range(_DRAWS):
        argument = functions.draw_argument(dice, composition)
        value = functions.evaluate(composition, argument)
        body = functions.write_body(dice, composition, names, wrong_share=1.0)
        try:
            wrong = repr(functions.call(functions.define(names, body), names.function, argument))
        except functions.FAULTS:
            return argument, value, dice.choice(_NOWHERE)
        if wrong != repr(value):
            break
    return argument, value, wrong


def draw_example(dice: random.Random, wrong_share: float = 0.0, *, clean: bool = False) -> Example:
    """Draw an example.

    Args:
        dice: Random generator.
        wrong_share: Probability of mistakes in the answer; see `functions.write_body`.
        clean: Whether the tests must pass, as in few-shot examples; by default they may also be wrong or missing.
    """
    composition = functions.draw(dice)
    names = functions.draw_names(dice, composition)
    return write_example(dice, composition, names, wrong_share, clean=clean)


def write_example(
    dice: random.Random, composition: Composition, names: Names, wrong_share: float = 0.0, *, clean: bool = False
) -> Example:
    """Write an example of a function; arguments as in `draw_example`."""
    seed = write_function(dice, composition, names)
    body = functions.write_body(dice, composition, names, wrong_share)
    head = signature(composition, names, annotated=dice.random() < 0.5)
    code = f"{head}\n{functions.indented(body.body)}"
    reason = write_reason(dice, composition)
    while True:
        tests = "\n".join(write_assertion(dice, composition, names) for _ in range(dice.choice((2, 3))))
        passes = holds(code, tests)
        if passes or not clean:
            break
    if not clean and dice.random() < MISSING_TESTS_SHARE:
        tests = ""
    return Example(
        composition,
        names,
        seed,
        write_instruction(dice, composition, names),
        f"{reason}\n\n```python\n{code}\n```",
        tests,
        body.is_right,
        bool(tests) and passes,
    )


def holds(code: str, tests: str) -> bool:
    """Return whether the code passes the tests. Only for the recipe's own texts, since they run without isolation."""
    try:
        exec(f"{code}\n{tests}", {})  # noqa: S102 - both are the recipe's own
    except functions.FAULTS:
        return False
    return True


def write_prompt(dice: random.Random, composition: Composition, names: Names) -> str:
    """Return a signature and a docstring with an example, to be completed with a body."""
    argument = functions.draw_argument(dice, composition)
    lines = (
        signature(composition, names, annotated=True),
        f'{functions.INDENT}"""Return {functions.describe(composition, names.parameter)}.',
        f"{functions.INDENT}>>> {names.function}({argument!r})",
        f"{functions.INDENT}{functions.evaluate(composition, argument)!r}",
        f'{functions.INDENT}"""',
    )
    return "\n".join(lines) + "\n"
