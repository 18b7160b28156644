"""What an answer defines, and how tests use it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from codealign.coordinator.agreement.assertions import MAX_NODES
from codealign.coordinator.agreement.trees import rebuilt

HOLE = "_"
"""Stands in a view for the result of the call."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MAX_TEXT = 200
"""Characters of an annotation, a default or a view."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function."""

    name: str
    kind: str
    """"positional", "keyword", "rest" (`*args`) or "keywords" (`**kwargs`)."""
    annotation: str = ""
    """Source of the annotation. Empty: none."""
    default: str = ""
    """Source of the default. Empty: none."""


@dataclass(frozen=True)
class Subject:
    """What tests call: a function or a class of the answer, or a method of it."""

    callee: str
    """The expression that is called: `f`, `Solution().f`, `Point.of` or `Point`."""
    view: str
    """What is looked at, with `_` for the result of the call: `_.area()`. Empty: the result itself."""
    parameters: tuple[Parameter, ...]

    @property
    def name(self) -> str:
        """The name that the code defines."""
        return self.callee.partition(".")[0].partition("(")[0]


@dataclass(frozen=True)
class Use:
    """A call of something that the answer defines."""

    callee: str
    view: str
    """As in `Subject`."""
    node: ast.expr = field(compare=False)
    """The call, with `await` or `asyncio.run` around it."""
    arguments: Sequence[ast.expr] = field(compare=False)
    keywords: Sequence[ast.keyword] = field(compare=False)

    @property
    def key(self) -> tuple[str, str]:
        """What is called and looked at."""
        return self.callee, self.view


class Definitions:
    """The functions and classes at the top level of an answer, and their methods.

    Args:
        tree: The answer's code.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._functions = {each.name: each for each in tree.body if isinstance(each, _FUNCTIONS)}
        self._classes = {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}

    @property
    def classes(self) -> frozenset[str]:
        """Names of the classes."""
        return frozenset(self._classes)

    @property
    def names(self) -> frozenset[str]:
        """Names of functions and classes."""
        return frozenset(self._functions) | frozenset(self._classes)

    def parameters(self, callee: str) -> tuple[Parameter, ...]:
        """Return the parameters of a callee, without `self`. Empty if they are not written in the code."""
        owner, _, method = callee.replace("()", "").partition(".")
        if not method and owner in self._functions:
            return tuple(_parameters(self._functions[owner].args))
        kind = self._classes.get(owner)
        for each in kind.body if kind else ():
            if isinstance(each, _FUNCTIONS) and each.name == (method or "__init__"):
                is_static = any(getattr(one, "id", "") == "staticmethod" for one in each.decorator_list)
                return tuple(_parameters(each.args))[0 if is_static else 1 :]
        return ()

    def uses(self, expression: ast.expr) -> list[Use]:
        """Return the calls of what the answer defines, in an expression."""
        parents: dict[ast.AST, ast.AST] = {}
        calls: list[ast.Call] = []
        waiting: list[ast.AST] = [expression]
        while waiting and len(parents) < MAX_NODES:
            node = waiting.pop()
            if isinstance(node, ast.Call):
                calls.append(node)
            for child in ast.iter_child_nodes(node):
                if not isinstance(child, ast.expr_context | ast.operator | ast.cmpop):
                    parents[child] = node
                    waiting.append(child)
        found = [use for call in calls if (use := self._use(call, parents)) is not None]
        # In `f(Point(1, 2))` the point is an argument.
        nodes = {id(use.node) for use in found}
        return [use for use in found if use.callee not in self._classes or not _is_inside(use.node, nodes, parents)]

    def _use(self, call: ast.Call, parents: dict[ast.AST, ast.AST]) -> Use | None:
        function = call.func
        if isinstance(function, ast.Name) and function.id in self._functions:
            return Use(function.id, "", _awaited(call, parents), call.args, call.keywords)
        if isinstance(function, ast.Attribute) and getattr(function.value, "id", "") in self._classes:
            callee = f"{getattr(function.value, 'id', '')}.{function.attr}"
            return Use(callee, "", _awaited(call, parents), call.args, call.keywords)
        if not isinstance(function, ast.Name) or function.id not in self._classes:
            return None
        attribute = parents.get(call)
        method = parents.get(attribute) if isinstance(attribute, ast.Attribute) else None
        if isinstance(method, ast.Call) and method.func is attribute and not call.args and not call.keywords:
            assert isinstance(attribute, ast.Attribute)
            callee = f"{function.id}().{attribute.attr}"
            return Use(callee, "", _awaited(method, parents), method.args, method.keywords)
        return Use(function.id, _view(call, parents), call, call.args, call.keywords)


def _is_inside(node: ast.AST, others: set[int], parents: dict[ast.AST, ast.AST]) -> bool:
    while (parent := parents.get(node)) is not None:
        if id(parent) in others:
            return True
        node = parent
    return False


def _awaited(call: ast.Call, parents: dict[ast.AST, ast.AST]) -> ast.expr:
    """Return the call with `await` or `asyncio.run` around it."""
    parent = parents.get(call)
    if isinstance(parent, ast.Await):
        return parent
    if isinstance(parent, ast.Call) and getattr(parent.func, "attr", "") == "run" and parent.args == [call]:
        return parent
    return call


def _view(call: ast.Call, parents: dict[ast.AST, ast.AST]) -> str:
    """Return what is looked at of an object: the largest expression around its construction that is not a condition."""
    whole: ast.expr = call
    node = parents.get(call)
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.keyword):
        if isinstance(node, ast.expr):
            whole = node
        node = parents.get(node)
    return view(whole, call)


def view(whole: ast.expr, call: ast.expr) -> str:
    """Return the source of an expression with `_` for a call in it. Empty: the call itself, or a source too long.

    Raises:
        RecursionError: It is nested too deeply.
    """
    if whole is call:
        return ""
    text = ast.unparse(rebuilt(whole, lambda node: ast.Name(HOLE, ast.Load()) if node is call else None))
    return text if len(text) <= _MAX_TEXT else ""


def _parameters(arguments: ast.arguments) -> Iterator[Parameter]:
    plain = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(plain) - len(arguments.defaults))
    for each, default in zip(plain, [*missing, *arguments.defaults], strict=True):
        yield _parameter(each, "positional", default)
    if arguments.vararg is not None:
        yield _parameter(arguments.vararg, "rest", None)
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(each, "keyword", default)
    if arguments.kwarg is not None:
        yield _parameter(arguments.kwarg, "keywords", None)


def _parameter(node: ast.arg, kind: str, default: ast.expr | None) -> Parameter:
    texts = ["" if each is None else ast.unparse(each) for each in (node.annotation, default)]
    return Parameter(node.arg, kind, *(text if len(text) <= _MAX_TEXT else "" for text in texts))
