"""Reads expressions of tests as values, without evaluating anything: literals, and constructors with literal arguments.

Sizes are limited: `[[0] * 500] * 500` is too large to be a value.
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Callable, Container

from codealign.coordinator.agreement.values import Built, Value, listed

MAX_NODES = 500
"""Literals and containers within one value."""
MAX_DEPTH = 12
"""Containers within containers."""
MAX_CHARS = 2_000
"""Characters of a text, and of a source."""
MAX_BITS = 1_000
"""Bits of an integer; Python itself refuses to print integers of more than 4,300 digits."""

_LIBRARY = {
    "Counter": "collections",
    "Decimal": "decimal",
    "Fraction": "fractions",
    "OrderedDict": "collections",
    "date": "datetime",
    "datetime": "datetime",
    "deque": "collections",
    "timedelta": "datetime",
}
"""Constructors of the standard library and their modules."""
MODULES = frozenset(_LIBRARY.values())
"""Modules that the source of a value may name."""
_BUILTIN = frozenset({"bytearray", "range"})
_FLOATS = {"math.inf": math.inf, "math.nan": math.nan, "math.pi": math.pi, "math.e": math.e}
_CONTAINERS: dict[str, Callable[..., Value]] = {
    "dict": dict,
    "frozenset": frozenset,
    "list": list,
    "set": set,
    "tuple": tuple,
}
_ITERABLE = (list, tuple, set, frozenset, dict, str)


class NotLiteral(Exception):
    """An expression that is neither a literal nor a call of a constructor with literal arguments, or is too large."""


def value(node: ast.expr, classes: Container[str] = ()) -> Value:
    """Read an expression.

    Args:
        node: The expression.
        classes: Names of further constructors: the answer's classes.

    Raises:
        NotLiteral: It is no such expression, or too large.
    """
    return _Reader(classes).read(node, 0)


class _Written:
    """The names that stand for the answer's classes in a text of `source`: all that are not ours."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.isidentifier() and name not in _CONTAINERS.keys() | _BUILTIN | {"float"}


def parsed(text: str) -> Value:
    """Read back what `source` has written.

    Raises:
        NotLiteral: It is no such text.
    """
    try:
        return _Reader(_Written()).read(ast.parse(text, mode="eval").body, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotLiteral(text[:80]) from error


class _Reader:
    def __init__(self, classes: Container[str]) -> None:
        self._classes, self._left = classes, MAX_NODES

    def _spend(self, nodes: int) -> None:
        self._left -= nodes
        if self._left < 0:
            raise NotLiteral("too large")

    def read(self, node: ast.expr, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise NotLiteral("nested too deeply")
        self._spend(1)
        if isinstance(node, ast.Constant):
            found = _checked(node.value)
            self._spend(_size(found))
            return found
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            items = [self.read(each, depth + 1) for each in node.elts]
            return items if isinstance(node, ast.List) else tuple(items) if isinstance(node, ast.Tuple) else _set(items)
        if isinstance(node, ast.Dict):
            return self._dict(node, depth)
        if isinstance(node, ast.UnaryOp):
            return _signed(node.op, self.read(node.operand, depth + 1))
        if isinstance(node, ast.BinOp):
            return self._computed(node.op, self.read(node.left, depth + 1), self.read(node.right, depth + 1))
        if isinstance(node, ast.Attribute) and _dotted(node) in _FLOATS:
            return _FLOATS[_dotted(node)]
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        raise NotLiteral(type(node).__name__)

    def _dict(self, node: ast.Dict, depth: int) -> Value:
        found = {}
        for key, item in zip(node.keys, node.values, strict=True):
            if key is None:
                raise NotLiteral("unpacking")
            read = self.read(key, depth + 1)
            if not _is_hashable(read):
                raise NotLiteral("an unhashable key")
            found[read] = self.read(item, depth + 1)
        return found

    def _call(self, node: ast.Call, depth: int) -> Value:
        name = self._constructor(node.func)
        arguments = tuple(self.read(each, depth + 1) for each in node.args)
        if any(keyword.arg is None for keyword in node.keywords):
            raise NotLiteral("unpacking")
        keywords = tuple((str(keyword.arg), self.read(keyword.value, depth + 1)) for keyword in node.keywords)
        if name == "float":
            return _float(arguments, keywords)
        if name in _CONTAINERS:
            made = _container(name, arguments, keywords)
            self._spend(len(made))
            return made
        return Built(name, arguments, keywords)

    def _computed(self, op: ast.operator, left: Value, right: Value) -> Value:
        """Compute what tests write for large arguments: `10**6`, `[0] * 50`, `"a" * 100`, `2**31 - 1`."""
        if isinstance(left, str | list | tuple) and type(right) is int and isinstance(op, ast.Mult):
            if abs(right) > sys.maxsize:
                raise NotLiteral("an operation")  # an OverflowError, even where nothing is repeated
            if isinstance(left, str):
                self._spend(len(left) * max(0, right) // 16)
                return _checked(left * right)
            if not any(isinstance(each, _NESTING) for each in left):
                self._spend(sum(_size(each) + 1 for each in left) * max(0, right))
                return left * right
        elif type(left) is int and type(right) is int:
            if isinstance(op, ast.Add):
                return _checked(left + right)
            if isinstance(op, ast.Sub):
                return _checked(left - right)
            if isinstance(op, ast.Mult):
                return _checked(left * right)
            if isinstance(op, ast.Pow) and right >= 0 and left.bit_length() * right <= MAX_BITS:
                return left**right
        raise NotLiteral("an operation")

    def _constructor(self, node: ast.expr) -> str:
        name = _dotted(node)
        if name in self._classes:
            return name
        last = name.rpartition(".")[2]
        if last in _LIBRARY and name in (last, f"{_LIBRARY[last]}.{last}"):
            return f"{_LIBRARY[last]}.{last}"
        if name in _CONTAINERS or name in _BUILTIN or name == "float":
            return name
        raise NotLiteral("a call")


_NESTING = (list, tuple, set, frozenset, dict, Built)


def _dotted(node: ast.expr) -> str:
    """Return `a` or `a.b`, or "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def _checked(found: Value) -> Value:
    too_large = (isinstance(found, int) and found.bit_length() > MAX_BITS) or (
        isinstance(found, str | bytes) and len(found) > MAX_CHARS
    )
    if too_large or isinstance(found, complex) or found is Ellipsis:
        raise NotLiteral(type(found).__name__)
    return found


def _signed(op: ast.unaryop, operand: Value) -> Value:
    if isinstance(operand, int | float) and not isinstance(operand, bool):
        if isinstance(op, ast.USub):
            return -operand
        if isinstance(op, ast.UAdd):
            return operand
    raise NotLiteral("an operation")


def _size(found: Value) -> int:
    """Return the nodes that a scalar counts as: long texts are not many, however few items hold them."""
    return len(found) // 16 if isinstance(found, str | bytes) else 0


def _float(arguments: tuple[Value, ...], keywords: object) -> float:
    if keywords or len(arguments) != 1 or not isinstance(arguments[0], str | int | float):
        raise NotLiteral("float()")
    try:
        return float(arguments[0])
    except (ValueError, OverflowError) as error:
        raise NotLiteral("float()") from error


def _container(name: str, arguments: tuple[Value, ...], keywords: tuple[tuple[str, Value], ...]) -> Value:
    if (
        len(arguments) > 1
        or (keywords and name != "dict")
        or not all(isinstance(each, _ITERABLE) for each in arguments)
    ):
        raise NotLiteral(f"{name}()")
    if name not in ("set", "frozenset"):  # these have no order
        arguments = tuple(listed(each) if isinstance(each, set | frozenset) else each for each in arguments)
    try:
        return _CONTAINERS[name](*arguments, **dict(keywords))
    except (TypeError, ValueError) as error:  # an unhashable item, no pair
        raise NotLiteral(f"{name}()") from error


def _set(items: list[Value]) -> set[Value]:
    if not all(map(_is_hashable, items)):
        raise NotLiteral("an unhashable item")
    return set(items)


def _is_hashable(found: Value) -> bool:
    try:
        hash(found)
    except TypeError:
        return False
    return True
