"""The assertions of a tests text, with the values of the names in them.

Tests write one comparison in many ways: with names for arguments and expectations, in loops over tables, in test
functions, as unittest's methods. Here each becomes a condition without names as far as these are bound to literals, or
to calls, in the straight line before it. Nothing is executed. What a branch or an unknown loop may have changed is
unknown, and so is a mutable value that a statement was applied to. The work is bounded by `MAX_WORK`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from codealign.coordinator.agreement.trees import with_names
from codealign.coordinator.agreement.unittests import condition, expected_exception

MAX_FOUND = 200
"""Assertions and other statements with calls, of one tests text."""
MAX_WORK = 40_000
"""Nodes looked at, those in loops once for each row."""
MAX_ROWS = 64
"""Rows of a table in a loop."""
MAX_DEPTH = 20
"""Blocks within blocks."""
MAX_NODES = 2_000
"""Nodes of a condition."""
MAX_BOUND_NODES = 400
"""Nodes of the value of a name."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (*_FUNCTIONS, ast.ClassDef, ast.If, ast.While, ast.For, ast.AsyncFor, ast.With, ast.AsyncWith, ast.Try)


class Bound(NamedTuple):
    """What a name stands for."""

    value: ast.expr
    size: int
    """Nodes of the value."""


Names = Mapping[str, Bound]
Known = dict[str, Bound]


@dataclass(frozen=True)
class Found:
    """An assertion, or another statement with calls."""

    line: int
    expression: ast.expr
    """The condition of an assertion, or an expression that is evaluated, in both cases with values for names."""
    is_assertion: bool
    raises: str = ""
    """The exception that evaluating the expression must raise. Empty: none."""
    with_objects: bool = False
    """Whether a name stands for the result of a call, which other statements may have changed since."""


def find(tree: ast.Module) -> list[Found]:
    """Return the assertions of a tests text, and its other statements with calls, in their order."""
    return list(islice(_Walker().block(tree.body, {}, 0), MAX_FOUND))


class _Walker:
    def __init__(self) -> None:
        self._left = MAX_WORK

    def block(self, body: Sequence[ast.stmt], names: Names, depth: int, raises: str = "") -> Iterator[Found]:
        """Yield what the statements contain. `names` is what is known before the first of them."""
        known = dict(names)
        for statement in body:
            if depth > MAX_DEPTH or self._left < 0:
                return
            simple = not isinstance(statement, _BLOCKS)
            self._left -= 1 + (sum(1 for _ in ast.walk(statement)) if simple else len(known))
            yield from self._statement(statement, known, depth, raises)

    def _statement(self, node: ast.stmt, known: Known, depth: int, raises: str) -> Iterator[Found]:
        if isinstance(node, ast.Assert):
            for part in _conjuncts(node.test):
                yield self._found(node, part, known, is_assertion=True)
        elif isinstance(node, ast.Expr):
            yield from self._evaluated(node, known, raises)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            if node.value is not None and _has_call(node.value):
                yield self._found(node, node.value, known, raises=raises)
            self._assign(node, known)
        elif isinstance(node, ast.For):
            yield from self._loop(node, known, depth, raises)
        elif isinstance(node, _FUNCTIONS):
            parameters = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            outer = {name: value for name, value in known.items() if name not in parameters}
            yield from self.block(node.body, outer, depth + 1)
            known.pop(node.name, None)
        elif isinstance(node, ast.ClassDef):
            yield from self.block(node.body, known, depth + 1)
            known.pop(node.name, None)
        else:
            inside = raises or (expected_exception(node) if isinstance(node, ast.With | ast.AsyncWith) else "")
            for body in _bodies(node):
                yield from self.block(body, known, depth + 1, inside)
            _forget(known, _stored(node))

    def _loop(self, node: ast.For, known: Known, depth: int, raises: str) -> Iterator[Found]:
        stored = _stored(node)
        rows = _rows(self._resolved(node.iter, known))
        outer = {name: value for name, value in known.items() if name not in stored}
        for row in rows if rows is not None else [None]:
            inside = dict(outer)
            if row is not None:
                _bind(node.target, row, inside)
            yield from self.block(node.body, inside, depth + 1, raises)
        _forget(known, stored)

    def _evaluated(self, node: ast.Expr, known: Known, raises: str) -> Iterator[Found]:
        """Yield unittest's assertions as conditions, and other calls as they are."""
        value = node.value
        if isinstance(value, ast.Call) and (asserted := condition(value)):
            yield self._found(node, asserted[0], known, is_assertion=True, raises=asserted[1])
            return
        if _has_call(value):
            yield self._found(node, value, known, raises=raises)
        # Whatever the statement was applied to may have changed.
        used = [each.id for each in ast.walk(value) if isinstance(each, ast.Name) and each.id in known]
        _forget(known, [name for name in used if not isinstance(known[name].value, ast.Constant)])

    def _assign(self, node: ast.Assign | ast.AnnAssign, known: Known) -> None:
        value = self._resolved(node.value, known) if node.value is not None else None
        _forget(known, _stored(node))
        if value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                _bind(target, value, known)

    def _found(
        self, node: ast.stmt, expression: ast.expr, known: Names, *, is_assertion: bool = False, raises: str = ""
    ) -> Found:
        used = {each.id for each in ast.walk(expression) if isinstance(each, ast.Name)} & known.keys()
        objects = any(isinstance(known[name].value, ast.Call | ast.Await) for name in used)
        return Found(node.lineno, self._resolved(expression, known), is_assertion or bool(raises), raises, objects)

    def _resolved(self, node: ast.expr, known: Names) -> ast.expr:
        """Replace the names that are known by their values, unless that makes the expression too large."""
        names, bound, size = set[str](), set[str](), 0
        for each in islice(ast.walk(node), MAX_NODES + 1):
            size += 1
            if isinstance(each, ast.Name):
                (names if isinstance(each.ctx, ast.Load) else bound).add(each.id)
                size += known[each.id].size if each.id in known else 0
            elif isinstance(each, ast.arg):
                bound.add(each.arg)
        wanted = {name: known[name].value for name in names - bound if name in known}
        if not wanted or size > MAX_NODES:
            return node
        self._left -= size
        try:
            return with_names(node, wanted)
        except RecursionError:
            return node


def _has_call(node: ast.expr) -> bool:
    return any(isinstance(each, ast.Call) for each in ast.walk(node))


def _conjuncts(test: ast.expr) -> Iterator[ast.expr]:
    """Yield the conditions that must all hold: of `a and b`, and of `all([a, b])`."""
    waiting = [test]
    while waiting:
        each = waiting.pop()
        if isinstance(each, ast.BoolOp) and isinstance(each.op, ast.And):
            waiting += reversed(each.values)
        elif isinstance(each, ast.Call) and getattr(each.func, "id", "") == "all" and _is_table(each.args):
            waiting += reversed(_rows(each.args[0]) or [])
        else:
            yield each


def _is_table(arguments: Sequence[ast.expr]) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], ast.List | ast.Tuple)


def _bodies(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        if body := getattr(node, name, None):
            yield body
    for handler in getattr(node, "handlers", ()):
        yield handler.body


def _stored(node: ast.stmt) -> set[str]:
    """Return the names that a statement, or one inside it, binds or may change."""
    found = set[str]()
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
            found.add(each.id)
        elif isinstance(each, ast.Subscript | ast.Attribute) and not isinstance(each.ctx, ast.Load):
            found.add(_root(each))
        elif isinstance(each, ast.Expr):
            found |= {name.id for name in ast.walk(each) if isinstance(name, ast.Name)}
    return found


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _forget(known: Known, names: Iterable[str]) -> None:
    for name in names:
        known.pop(name, None)


def _bind(target: ast.expr, value: ast.expr, known: Known) -> None:
    """Bind the names of a target, as far as the parts of the value are known."""
    if isinstance(target, ast.Name):
        size = sum(1 for _ in islice(ast.walk(value), MAX_BOUND_NODES + 1))
        if size <= MAX_BOUND_NODES:
            known[target.id] = Bound(value, size)
    elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        starred = any(isinstance(each, ast.Starred) for each in [*target.elts, *value.elts])
        if len(target.elts) == len(value.elts) and not starred:
            for name, item in zip(target.elts, value.elts, strict=True):
                _bind(name, item, known)


def _rows(node: ast.expr) -> list[ast.expr] | None:
    """Return the values that a loop over a literal table takes, or None if they are not written there."""
    found: list[ast.expr] | None = None
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        found = node.elts
    elif isinstance(node, ast.Call) and not node.keywords:
        found = _computed_rows(node)
    if found is None or any(isinstance(each, ast.Starred) for each in found):
        return None
    return found[:MAX_ROWS]


def _computed_rows(node: ast.Call) -> list[ast.expr] | None:
    """Return the rows of `{...}.items()`, `zip([...], [...])`, `enumerate([...])` and `range(5)`."""
    if isinstance(node.func, ast.Attribute):
        table = node.func.value
        if node.func.attr != "items" or not isinstance(table, ast.Dict):
            return None
        return [_tuple(key, item) for key, item in zip(table.keys, table.values, strict=True) if key is not None]
    name = getattr(node.func, "id", "")
    if name == "range":
        return _range(node.args)
    if name not in ("zip", "enumerate"):
        return None
    columns = [column for each in node.args if isinstance(each, ast.List | ast.Tuple) and (column := _rows(each))]
    if not columns or len(columns) < len(node.args):
        return None
    if name == "enumerate":
        return [_tuple(ast.Constant(number), item) for number, item in enumerate(columns[0])]
    return [_tuple(*items) for items in zip(*columns, strict=False)]


def _tuple(*items: ast.expr) -> ast.expr:
    return ast.Tuple(list(items), ast.Load())


def _range(arguments: Sequence[ast.expr]) -> list[ast.expr] | None:
    ends = [each.value for each in arguments if isinstance(each, ast.Constant) and type(each.value) is int]
    if len(ends) != len(arguments) or not 1 <= len(ends) <= 2:
        return None
    return [ast.Constant(number) for number in islice(range(*ends), MAX_ROWS)]
