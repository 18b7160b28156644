"""Places in code where one small change makes a fault that people and models make.

Each place is a replacement in the text, not in the syntax tree: layout and comments around it stay, and the text of a
mutant does not depend on how a release of Python prints trees. Left alone are docstrings, annotations, decorators,
f-strings, what `raise` says, main guards, and statements at module level that are no definitions or assignments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from codealign.coordinator.reading.python_code import Offsets

_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
}
_CALLS = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "upper": "lower",
    "lower": "upper",
    "startswith": "endswith",
    "endswith": "startswith",
}
_BETWEEN = re.compile(r"(?:[\s\\)]|#[^\n\r]*)*")
"""What may stand before an operator after its left operand's node."""
_EMPTY_CALLS = {"sorted": "[]", "list": "[]", "dict": "{}", "set": "set()", "str": '""', "len": "0", "sum": "0"}
_EMPTY_ANNOTATIONS = {"int": "0", "float": "0.0", "str": '""', "bool": "False", "list": "[]", "dict": "{}"}
_MAX_BITS = 64
_SHOWN = 40


@dataclass(frozen=True)
class Mutation:
    """A replacement in the text of some code."""

    start: int
    end: int
    """Offsets of what is replaced."""
    text: str
    kind: str
    """"comparison", "boundary", "condition", "boolean", "arithmetic", "slice", "call", "constant", "default" or
    "return"."""
    line: int
    shown: tuple[str, str]
    """What is there and what replaces it, for people."""


def find(code: str, tree: ast.Module) -> list[Mutation]:
    """Return the mutations of code, in the order of their places.

    Args:
        code: The code.
        tree: Its syntax tree.
    """
    finder = _Finder(code)
    found = [mutation for node, kind in _nodes(tree) for mutation in finder.of(node, kind)]
    return sorted(found, key=lambda mutation: (mutation.start, mutation.end))


def _nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield the nodes that may change, with the kind of a constant in each place."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    waiting: list[tuple[ast.AST, str]] = [(node, "constant") for node in tree.body if isinstance(node, definitions)]
    while waiting:
        node, kind = waiting.pop()
        if isinstance(node, ast.If) and any(getattr(each, "id", "") == "__name__" for each in ast.walk(node.test)):
            continue
        yield node, kind
        left_out = _left_out(node)
        for name, value in ast.iter_fields(node):
            if name in left_out:
                continue
            inside = "default" if name in ("defaults", "kw_defaults") else kind
            children = value if isinstance(value, list) else [value]
            waiting += [(each, inside) for each in children if isinstance(each, ast.AST) and not _is_text(each)]


def _left_out(node: ast.AST) -> tuple[str, ...]:
    """Return the fields of a node that do not change."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return node._fields
    return ("annotation", "returns", "decorator_list", "msg", "type_params")


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is only a string: a docstring, or a comment."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class _Finder:
    def __init__(self, code: str) -> None:
        self._code, self._offsets = code, Offsets(code)
        self._returns = ""

    def of(self, node: ast.AST, kind: str) -> Iterator[Mutation]:
        """Yield the mutations of one node."""
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for number, op in enumerate(node.ops):
                yield from self._operator(operands[number], operands[number + 1], *_COMPARISONS[type(op)], "comparison")
        elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _joins(node):
            yield from self._arithmetic(node.left, node.right, node.op, "")
        elif isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
            yield from self._arithmetic(node.target, node.value, node.op, "=")
        elif isinstance(node, ast.BoolOp):
            words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from self._operator(left, right, *words, "boolean")
        elif isinstance(node, ast.UnaryOp):
            yield from self._unary(node)
        elif isinstance(node, ast.If | ast.IfExp):
            yield from self._condition(node)
        elif isinstance(node, ast.comprehension):
            for test in node.ifs:
                yield self._replaced(test, "True", "condition")
        elif isinstance(node, ast.Constant):
            yield from self._constant(node, kind)
        elif isinstance(node, ast.Slice):
            yield from self._slice(node)
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from self._returned(node)

    def _replaced(self, node: ast.expr, text: str, kind: str) -> Mutation:
        start, end = self._offsets.span(node)
        return Mutation(start, end, text, kind, node.lineno, (self._code[start:end], text))

    def _operator(self, left: ast.expr, right: ast.expr, pattern: str, text: str, kind: str) -> Iterator[Mutation]:
        """Replace the operator between two operands."""
        after, until = self._offsets.span(left)[1], self._offsets.span(right)
        begins = _BETWEEN.match(self._code, after, until[0])
        there = re.compile(pattern).match(self._code, begins.end(), until[0]) if begins else None
        if there is not None:
            operand = self._code[until[0] : until[1]]
            line = self._code.count("\n", 0, there.start()) + 1 if left.lineno != right.lineno else left.lineno
            shown = (f"{there[0]} {operand}", f"{text} {operand}")
            yield Mutation(there.start(), there.end(), text, kind, line, shown)

    def _arithmetic(self, left: ast.expr, right: ast.expr, op: ast.operator, end: str) -> Iterator[Mutation]:
        there, instead = _ARITHMETIC[type(op)]
        yield from self._operator(left, right, re.escape(there + end), instead + end, "arithmetic")

    def _unary(self, node: ast.UnaryOp) -> Iterator[Mutation]:
        words: dict[type[ast.unaryop], tuple[str, str]] = {ast.Not: ("not", "condition"), ast.USub: ("-", "arithmetic")}
        if type(node.op) in words and not isinstance(node.operand, ast.Constant):
            word, kind = words[type(node.op)]
            start, end = self._offsets.span(node)
            whole = self._code[start:end]
            yield Mutation(start, start + len(word), "", kind, node.lineno, (whole, whole[len(word) :].lstrip()))

    def _condition(self, node: ast.If | ast.IfExp) -> Iterator[Mutation]:
        start, end = self._offsets.span(node.test)
        if not isinstance(node.test, ast.UnaryOp):
            yield self._replaced(node.test, f"not ({self._code[start:end]})", "condition")
        if isinstance(node, ast.If) and not node.orelse:
            yield self._replaced(node.test, "False", "condition")

    def _constant(self, node: ast.Constant, kind: str) -> Iterator[Mutation]:
        value = node.value
        if isinstance(value, bool):
            yield self._replaced(node, str(not value), kind)
        elif isinstance(value, int) and value.bit_length() <= _MAX_BITS:
            for other in (value + 1, value - 1):
                yield self._replaced(node, str(other), "boundary" if kind == "constant" else kind)
        elif isinstance(value, float) and abs(value) < 1e15:
            yield self._replaced(node, repr(value + 1.0), kind)
        elif isinstance(value, str):
            yield self._replaced(node, '""' if value else '"a"', kind)

    def _slice(self, node: ast.Slice) -> Iterator[Mutation]:
        for end, step in ((node.lower, "+ 1"), (node.upper, "- 1")):
            if end is not None and not isinstance(end, ast.Constant):
                start, stop = self._offsets.span(end)
                yield self._replaced(end, f"({self._code[start:stop]}) {step}", "slice")

    def _call(self, node: ast.Call) -> Iterator[Mutation]:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else str(getattr(node.func, "id", ""))
        if name in _CALLS:
            _, end = self._offsets.span(node.func)
            start = end - len(name)
            yield Mutation(start, end, _CALLS[name], "call", node.func.end_lineno or 0, (name, _CALLS[name]))
        if name == "range" and 1 <= len(node.args) <= 2 and not isinstance(node.args[-1], ast.Constant | ast.Starred):
            start, end = self._offsets.span(node.args[-1])
            for step in ("- 1", "+ 1"):
                yield self._replaced(node.args[-1], f"({self._code[start:end]}) {step}", "boundary")

    def _returned(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Mutation]:
        """Replace what the function returns by an empty value of its kind."""
        annotation = function.returns.value if isinstance(function.returns, ast.Subscript) else function.returns
        wanted = _EMPTY_ANNOTATIONS.get(str(getattr(annotation, "id", "")), "")
        waiting: list[ast.AST] = list(function.body)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Return) and node.value is not None:
                empty = _empty(node.value) or wanted or "None"
                if ast.unparse(node.value) != ast.unparse(ast.parse(empty)):
                    yield self._replaced(node.value, empty, "return")
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
                waiting += ast.iter_child_nodes(node)


def _joins(node: ast.BinOp) -> bool:
    """Return whether an operation joins texts or lists, or formats a text: any other operator only raises."""
    texts = (ast.JoinedStr, ast.List, ast.ListComp)
    return any(
        isinstance(each, texts) or (isinstance(each, ast.Constant) and isinstance(each.value, str))
        for each in (node.left, node.right)
    )


def _empty(value: ast.expr) -> str:
    """Return an empty value of the kind of an expression, or "" if its kind is not written."""
    if isinstance(value, ast.List | ast.ListComp):
        return "[]"
    if isinstance(value, ast.Dict | ast.DictComp):
        return "{}"
    if isinstance(value, ast.Set | ast.SetComp):
        return "set()"
    if isinstance(value, ast.Tuple):
        return "()"
    if isinstance(value, ast.Compare | ast.BoolOp) or (
        isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    ):
        return "False"
    if isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str)):
        return '""'
    return _EMPTY_CALLS.get(str(getattr(value.func, "id", "")), "") if isinstance(value, ast.Call) else ""


def short(text: str) -> str:
    """Return a piece of code on one line, cut to a few words."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
