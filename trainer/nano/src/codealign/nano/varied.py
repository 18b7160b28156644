"""Other arguments for a response's own tests, where nothing else says what is right.

An assertion `f(ARGUMENT) == EXPRESSION` whose expression contains the argument says what `f` returns for any argument
of this kind. If code and expression differ for another argument, one of the two is wrong.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator

from codealign.nano import arguments
from codealign.nano.blocks import Argument
from codealign.nano.judgement import Case, Checks

_MOST = 40
"""Number of other arguments for one assertion."""
_LARGEST_CONSTANT = 10
"""A number up to this one may be a constant of the expression rather than its argument."""


def checks(tests: str) -> Checks | None:
    """Return the response's assertions with other arguments, or None if none of them can be varied.

    Args:
        tests: The response's tests. All assertions must be about one function.
    """
    try:
        statements = ast.parse(tests).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = [varied for statement in statements if (varied := _varied(statement)) is not None]
    if len({function for function, _ in found}) != 1:
        return None
    cases = dict.fromkeys(case for _, cases in found for case in cases)
    return Checks(found[0][0], tuple(cases), are_ours=False)


def _varied(statement: ast.stmt) -> tuple[str, list[Case]] | None:
    """Return the function of an assertion and the assertion's other cases, or None if it has another form."""
    match statement:
        case ast.Assert(
            test=ast.Compare(
                left=ast.Call(func=ast.Name(id=function), args=[argument], keywords=[]),
                ops=[ast.Eq()],
                comparators=[expression],
            )
        ):
            pass
        case _:
            return None
    kind = _kind(_literal(argument))
    is_there = any(ast.dump(node) == ast.dump(argument) for node in ast.walk(expression))
    asks_itself = any(isinstance(node, ast.Name) and node.id == function for node in ast.walk(expression))
    # A literal value may contain the argument by chance.
    if kind is None or not is_there or asks_itself or _literal(expression) is not None:
        return None
    dice = random.Random(ast.unparse(statement))  # noqa: S311 - not used for secrets
    drawn = arguments.draw(dice, kind[0], _constants(expression), is_small=kind[1])
    others = [each for each in drawn if each]  # an expression need not know what to do without elements
    chosen = dice.sample(others, min(_MOST, len(others)))
    return function, [Case(repr(each), _with(expression, argument, each)) for each in chosen]


def _literal(node: ast.expr) -> object | None:
    """Return a literal's value, or None for other expressions."""
    try:
        value: object = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return value


def _kind(value: object) -> tuple[Argument, bool] | None:
    """Return an argument's kind and whether it is small (see `arguments.draw`), or None for all other arguments."""
    match value:
        case [_, *_] if all(type(each) is int for each in value):
            return Argument.NUMBERS, False
        case [_, *_] if all(type(each) is str for each in value):
            return Argument.WORDS, False
        case str() if len(value) > 1:
            return Argument.TEXT, value.isalpha()
        case int() if value > _LARGEST_CONSTANT:
            return Argument.COUNT, value <= arguments.SMALL
        case dict() if value and all(isinstance(key, str) and type(each) is int for key, each in value.items()):
            return Argument.TABLE, False
    return None


def _constants(expression: ast.expr) -> Iterator[int | str]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | str):
            yield node.value


def _with(expression: ast.expr, argument: ast.expr, other: object) -> str:
    """Return the expression with another argument in every place of the given one."""
    return ast.unparse(_Replaced(ast.dump(argument), other).visit(copy.deepcopy(expression)))


class _Replaced(ast.NodeTransformer):
    def __init__(self, given: str, other: object) -> None:
        self._given, self._other = given, ast.parse(repr(other), mode="eval").body

    def visit(self, node: ast.AST) -> ast.AST:
        """Return the other argument in place of the given one."""
        return self._other if ast.dump(node) == self._given else self.generic_visit(node)
