"""Analysis of generated Python code: whether it compiles, and which names its blocks share."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from codealign.common.foreign_python import without_warnings
from codealign.common.text import lines

BOM = "\ufeff"
SOLUTION = "solution"
_FAULTS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_BY_NAME = frozenset({"eval", "exec", "globals", "vars", "import_module"})
_TESTS_BY_NAME = _BY_NAME | {"locals", "getattr", "doctest", "inspect", "patch"}
"""Names that give access to any other name without writing it."""
SETTINGS = frozenset({"sys", "os", "random", "decimal", "locale", "warnings", "logging", "threading", "gc"})
"""Modules whose functions change how the whole program runs."""
_NO_SETTINGS = frozenset({"exit", "write", "flush", "system"})
_NO_CHANGES = frozenset({"main", "print", "input"})
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Names:
    """Names at a module's top level."""

    given: frozenset[str]
    """Names that the module binds."""
    taken: frozenset[str]
    """Names that the module uses but does not bind."""
    mentioned: frozenset[str]
    """All names that the module uses, including attributes and imports from other modules."""
    defined: frozenset[str]
    """Its functions and classes."""
    acted_on: frozenset[str]
    """Names it may change without binding: `TABLE["a"] = 1`, `@register`, `build()`, `sys.setrecursionlimit(99)`."""

    def reaches_anything(self, *, tests: bool = False) -> bool:
        """Return whether the code may use names that it does not write."""
        return not self.mentioned.isdisjoint(_TESTS_BY_NAME if tests else _BY_NAME)


def compiles(code: str) -> bool:
    """Return whether Python compiles the code as a module. The code is not run, and no warning is issued."""
    with without_warnings():
        try:
            compile(code.removeprefix(BOM), "<answer>", "exec", dont_inherit=True)
        except _FAULTS:
            return False
    return True


def parsed(code: str) -> ast.Module | None:
    """Return the syntax tree, or None if Python cannot read the code."""
    with without_warnings():
        try:
            return ast.parse(code)
        except _FAULTS:
            return None


class Offsets:
    """Converts positions of `ast` in a piece of code to offsets.

    Args:
        code: The code, which compiles.
    """

    def __init__(self, code: str) -> None:
        self._code = code
        self._starts = [0, *accumulate(map(len, lines(code, keepends=True)))]

    def of(self, line: int | None, column: int | None) -> int:
        """Return the offset of a position.

        Args:
            line: Line number, from 1.
            column: Column in bytes of UTF-8.
        """
        assert line is not None
        assert column is not None
        start = self._starts[line - 1]
        # Slice by at most `column` characters, never more than the bytes: a line may contain thousands of statements.
        return start + len(self._code[start : start + column].encode()[:column].decode())

    def span(self, node: ast.stmt | ast.expr) -> tuple[int, int]:
        """Return the offsets at which a node begins and ends."""
        return self.of(node.lineno, node.col_offset), self.of(node.end_lineno, node.end_col_offset)


def ends_in_literal(code: str) -> bool:
    """Return whether the code ends inside a triple-quoted string literal, so that its end is missing."""
    with without_warnings():
        try:
            compile(code.removeprefix(BOM), "<answer>", "exec", dont_inherit=True)
        except SyntaxError as error:
            return "unterminated triple-quoted" in str(error.msg)
        except _FAULTS:
            pass
    return False


def names(code: str) -> Names | None:
    """Return the names of code, or None if it does not compile or is nested too deeply to analyze."""
    source = code.removeprefix(BOM)
    try:
        with without_warnings():
            tree = ast.parse(source)
            table = symtable.symtable(source, "<answer>", "exec")
        given = frozenset(_given(table))
        used = frozenset(_used(table))
        early = frozenset(_used_early(tree.body))
        return Names(
            given=given,
            taken=(used - given) | early | frozenset(_from_solution(tree)),
            mentioned=frozenset(_mentioned(tree)),
            defined=frozenset(each.name for each in tree.body if isinstance(each, _DEFINITIONS)),
            acted_on=frozenset(_acted_on(tree, given)),
        )
    except _FAULTS:
        return None


def _from_solution(tree: ast.Module) -> Iterator[str]:
    """Yield names that tests import from the code, whose module has this name while they run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == SOLUTION:
            yield from (alias.name for alias in node.names)


def _given(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield names bound at module level, or by a function that declares them global."""
    outermost = table.get_type() == "module"
    for symbol in table.get_symbols():
        bound = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
        if bound and (outermost or symbol.is_declared_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _given(child)


def _used(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield the module's names that are read anywhere in it."""
    outermost = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (outermost or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _used(child)


def _used_early(body: list[ast.stmt]) -> Iterator[str]:
    """Yield names read before the module binds them: `area = cache(area)` needs an earlier `area`."""
    bound: set[str] = set()
    for statement in body:
        read, written = set[str](), set[str]()
        for node in _run_at_once(statement):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else written).add(node.id)
            elif isinstance(node, ast.alias):
                written.add((node.asname or node.name).partition(".")[0])
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            read.add(statement.target.id)
        # A loop or a comprehension does not take from before what it binds itself.
        yield from read - bound - (set() if isinstance(statement, ast.Assign | ast.AugAssign) else written)
        bound |= written
        if isinstance(statement, _DEFINITIONS):
            bound.add(statement.name)


def _run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the node and what runs with it: of functions only decorators, defaults and annotations."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, _FUNCTIONS):
            waiting.append(each.args)
            if not isinstance(each, ast.Lambda):
                waiting += [*each.decorator_list, *([each.returns] if each.returns else [])]
        else:
            waiting += ast.iter_child_nodes(each)


def _mentioned(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from node.module.split(".")


def _acted_on(tree: ast.Module, given: frozenset[str]) -> Iterator[str]:
    """Yield foreign names that module-level statements may change; "" stands for anything without a name."""
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    own = given - imported
    for statement in tree.body:
        for node in _run_at_once(statement):
            yield from (root for root in _changed(node, imported) if root not in own)


def _changed(node: ast.AST, imported: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield _root(node)
    elif isinstance(node, _DEFINITIONS):
        # Decorators register what they are given, and so may a base class.
        yield from map(_root, node.decorator_list)
        yield from map(_root, node.bases if isinstance(node, ast.ClassDef) else ())
    elif isinstance(node, ast.alias) and node.name == "*":
        yield ""
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield from _changed_by_call(node.value, imported)


def _changed_by_call(call: ast.Call, imported: set[str]) -> Iterator[str]:
    """Yield what a call with an unused value changes: a method its object, a function without arguments anything."""
    root = _root(call.func)
    if isinstance(call.func, ast.Attribute):
        if root not in imported or (root in SETTINGS and call.func.attr not in _NO_SETTINGS):
            yield root
    elif not call.args and not call.keywords and root not in _NO_CHANGES:
        yield root


def _root(node: ast.expr) -> str:
    """Return the name at the root of a chain of attributes, items and calls."""
    while True:
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return node.id if isinstance(node, ast.Name) else ""
