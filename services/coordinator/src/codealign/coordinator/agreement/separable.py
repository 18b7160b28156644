"""Which programs may be executed one after the other in one process, and what the end of their tests proves.

Each has a module of its own. It must not change what lies outside: files, other processes, settings of the library,
modules and builtins. So code and tests may only use modules that compute and have no settings, and nothing that opens a
file, makes code out of text or stores into what is imported. Whatever is in doubt is executed alone. The texts were
written by a model: they are parsed, never executed.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence

from codealign.coordinator.agreement.calls import MAX_CHARS
from codealign.coordinator.reading.python_code import BOM, parsed

_MODULES = frozenset(
    {
        "abc", "array", "base64", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "enum",
        "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "numbers", "numpy", "operator",
        "re", "statistics", "string", "struct", "textwrap", "types", "typing", "unicodedata", "zlib", "__future__",
    }
)  # fmt: skip
"""Modules that only compute."""
_REACHING = frozenset(
    {
        "open", "exec", "eval", "breakpoint", "setattr", "delattr", "__import__", "__loader__", "__spec__", "__file__",
        "__builtins__", "__code__", "__dict__", "__globals__", "__setattr__", "__delattr__", "__subclasses__",
        "CodeType", "FunctionType", "register",
    }
)  # fmt: skip
"""Names that lead outside, or to code that is not written there."""
_REACHING_BY_NUMPY = frozenset(
    {
        "DataSource", "ctypes", "ctypeslib", "errstate", "fromfile", "genfromtxt", "load", "loadtxt", "memmap",
        "printoptions", "random", "save", "savetxt", "savez", "savez_compressed", "set_printoptions", "setbufsize",
        "seterr", "seterrcall", "testing", "tofile",
    }
)  # fmt: skip
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BUILTINS = frozenset(dir(builtins))
_CATCHING = (ast.Try, ast.TryStar, ast.With, ast.AsyncWith)
"""Statements that may catch a failed assertion."""
_LEAVING = (ast.Return, ast.Yield, ast.YieldFrom)
"""With these, a function that is called may not get to its assertions."""


def modules(code: str, tests: str) -> tuple[str, ...] | None:
    """Return what code and tests import, or None if mutants of the code cannot be executed in one process."""
    used, imported, bound, stored = set[str](), set[str](), set[str](), set[str]()
    for text in (code, tests):
        tree = parsed(text) if len(text) <= MAX_CHARS else None
        if tree is None:
            return None
        for node in ast.walk(tree):
            names, found = _names(node)
            used |= names
            imported |= found
            if isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {(each.asname or each.name).partition(".")[0] for each in node.names}
            elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
                stored.add(_root(node))
    reaching = _REACHING | _REACHING_BY_NUMPY if "numpy" in imported else _REACHING
    if not imported <= _MODULES or not reaching.isdisjoint(used) or "*" in bound:
        return None
    return tuple(sorted(imported)) if stored.isdisjoint(bound | _BUILTINS) else None


def _root(node: ast.expr) -> str:
    """Return the name that a chain of attributes and items begins with. Empty: another expression."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _names(node: ast.AST) -> tuple[set[str], set[str]]:
    """Return the names that a node uses, and the modules that it imports."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}, set()
        case ast.Import(names=names):
            paths = [each.name.split(".") for each in names]
            return {part for path in paths for part in path[1:]}, {path[0] for path in paths}
        case ast.ImportFrom(module=module, names=names, level=level):
            first, *rest = (module or "").split(".")
            return {*rest, *(each.name for each in names)}, {"." if level else first}
    return set(), set()


def proves(tests: str) -> bool:
    """Return whether tests that ran to their end must have executed an assertion, and none that failed.

    The sandbox witnesses each assertion. Where it does not, this holds for assertions that nothing can catch or skip.
    """
    tree = parsed(tests.removeprefix(BOM))
    if tree is None or _contains(tree, _CATCHING):
        return False
    called = [name for each in tree.body if (name := _called(each))]
    always = list(tree.body)
    for function in ast.walk(tree):
        if isinstance(function, _FUNCTIONS) and _contains(function, ast.Assert):
            # Only statements of its own may call it: the code, if it could, might catch what it raises.
            is_plain = isinstance(function, ast.FunctionDef) and function in tree.body and not function.decorator_list
            uses = _uses(tree, function.name)
            if not is_plain or _contains(function, _LEAVING) or uses != called.count(function.name):
                return False
            always += function.body if uses else []
    return any(isinstance(each, ast.Assert) and _contains(each.test, ast.Call) for each in always)


def _contains(node: ast.AST, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> bool:
    return any(isinstance(each, kinds) for each in ast.walk(node))


def _called(statement: ast.stmt) -> str:
    """Return the name of the function that a statement consists of calling, without arguments. Empty: none."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=[], keywords=[])):
            return name
    return ""


def _uses(tree: ast.Module, name: str) -> int:
    return sum(1 for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name)


def differences(code: str, others: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield how each of the other texts differs: equal characters at the start and at the end, and what is between."""
    for other in others:
        most = min(len(code), len(other))
        start = next((i for i in range(most) if code[i] != other[i]), most)
        end = next((i for i in range(most - start) if code[-1 - i] != other[-1 - i]), most - start)
        yield start, end, other[start : len(other) - end]
