"""Oracles: expectations of tests that can be evaluated on other inputs.

`assert evens([3, 4]) == [x for x in [3, 4] if x % 2 == 0]` says what the function returns for any list. An expectation
becomes an oracle by replacing each literal argument in it by a parameter. A literal that occurs by chance would make a
wrong oracle (in `assert square(2) == 2 * 2`, which 2 is which?), so an oracle must reproduce the expectations of two
cases with different arguments, or replace only arguments that hardly occur by chance.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from codealign.coordinator.agreement.trees import rebuilt, with_names

MAX_ORACLES = 3
"""Oracles of one tests text, those that reproduce most cases first."""
_MAX_TRIED = 4
"""Cases whose expectations are compared with those of others."""
_MAX_COMPARED = 32
"""Cases that they are compared with."""
_OPERATIONS = (
    ast.Call, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Attribute, ast.JoinedStr,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


@dataclass(frozen=True)
class Oracle:
    """An expectation as an expression of named parameters."""

    parameters: tuple[str, ...]
    """For the positional arguments, in their order."""
    expression: str
    support: int
    """Cases whose expectation it reproduces."""


@dataclass(frozen=True)
class Pair:
    """Positional arguments of a call and the value expected of it."""

    arguments: Sequence[ast.expr]
    expectation: ast.expr


def find(pairs: Sequence[Pair], names: Sequence[str], defined: Collection[str]) -> tuple[Oracle, ...]:
    """Return the oracles of the cases of a tests text.

    Args:
        pairs: The cases.
        names: Names for the parameters, such as the function's own.
        defined: Names of the answer: an expectation that uses one of them says nothing of its own.
    """
    usable = islice((pair for pair in pairs if _is_usable(pair, defined)), _MAX_COMPARED)
    known = [(pair, [_key(each) for each in pair.arguments]) for pair in usable]
    found: dict[str, Oracle] = {}
    for pair, keys in known[:_MAX_TRIED]:
        parameters = _parameters(pair.expectation, len(keys), names)
        general, occurring = _generalized(pair.expectation, dict(zip(keys, parameters, strict=True)))
        if occurring != set(parameters) or len(set(keys)) < len(keys) or not isinstance(general, _OPERATIONS):
            continue
        key = _key(general)
        if key in found:
            continue
        reproduced = {
            tuple(others)
            for other, others in known
            if len(others) == len(keys)
            and _key(with_names(general, dict(zip(parameters, other.arguments, strict=True))))
            == _key(other.expectation)
        }
        if len(reproduced) > 1 or all(map(_is_telling, pair.arguments)):
            found[key] = Oracle(tuple(parameters), ast.unparse(general), len(reproduced))
    return tuple(sorted(found.values(), key=lambda oracle: -oracle.support)[:MAX_ORACLES])


def _is_usable(pair: Pair, defined: Collection[str]) -> bool:
    """Return whether an expectation computes something from literals, without the answer."""
    nodes = list(ast.walk(pair.expectation))
    computes = any(isinstance(node, _OPERATIONS) for node in nodes)
    return bool(pair.arguments) and computes and not any(isinstance(n, ast.Name) and n.id in defined for n in nodes)


def _parameters(expectation: ast.expr, count: int, names: Sequence[str]) -> list[str]:
    """Return names for the parameters that do not occur in the expression: a comprehension might bind them."""
    taken = {node.id for node in ast.walk(expectation) if isinstance(node, ast.Name)}
    taken |= {node.arg for node in ast.walk(expectation) if isinstance(node, ast.arg)}
    found = []
    for number in range(count):
        name = names[number] if number < len(names) else f"argument_{number + 1}"
        while name in taken:
            name += "_"
        taken.add(name)
        found.append(name)
    return found


def _generalized(expectation: ast.expr, parameters: Mapping[str, str]) -> tuple[ast.expr, set[str]]:
    """Replace what equals an argument, and return also which parameters occur then."""
    occurring = set[str]()

    def parameter(node: ast.AST) -> ast.expr | None:
        name = parameters.get(_key(node)) if isinstance(node, ast.expr) else None
        if name is None:
            return None
        occurring.add(name)
        return ast.Name(name, ast.Load())

    return rebuilt(expectation, parameter), occurring


def _key(node: ast.expr) -> str:
    """Return a text that is equal for equal expressions."""
    return ast.dump(node)


def _is_telling(argument: ast.expr) -> bool:
    """Return whether a literal hardly occurs in an expectation by chance."""
    parts = list(_scalars(argument))
    if len(parts) == 1 and isinstance(value := parts[0], int | float) and not isinstance(value, bool):
        return abs(value) > 10 and value % 10 != 0
    if len(parts) == 1 and isinstance(value, str | bytes):
        return len(value) > 2
    return len(parts) > 1


def _scalars(argument: ast.expr) -> Iterator[object]:
    for node in ast.walk(argument):
        if isinstance(node, ast.Constant):
            yield node.value
