"""Compiles a program so that its tests' assertions report themselves.

Standard library only, and little of it: every module that is imported here is in the memory that each execution
copies. An assertion of the tests, `assert condition, message`, becomes

    if condition:
        <assertion>(True)
    else:
        <assertion>(False)
        assert False, message

so that it counts where it stands: a handler that swallows the AssertionError swallows nothing that matters. A call
of one of unittest's assertions (`self.assertEqual(...)`) becomes the same by a try statement around it. Assertions
of the code are left alone: a precondition that the tests provoke and catch is no failure, and one that nothing
catches ends the program and is seen there.

What stands in angle brackets are constants of the code object, not names that a program could bind again. Each call
of `assertion` bears a mark in its source position; `sites` finds the instructions that have it, and from others than
these a call counts nothing.
"""

import _ast
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from codealign.runner import sources

TESTS_FILE = "<tests>"
_ONLY_TREE = 0x400
"""ast.PyCF_ONLY_AST."""
_MARK = 31_000
"""A column that no position in a real source is likely to have; and if one has it, it is no call of `assertion`."""
_UNITTEST_ASSERTION = re.compile(r"assert[A-Z]\w*|fail")
_Node = TypeVar("_Node", bound=_ast.AST)
_BLOCKS = ("body", "orelse", "finalbody")


class _Builder:
    """Makes nodes at the place of a statement: tracebacks then show the program's own line."""

    def __init__(self, at: _ast.stmt) -> None:
        self._place = (at.lineno, at.col_offset, at.end_lineno, at.end_col_offset)

    def __call__(self, kind: Callable[..., _Node], *fields: object, mark: bool = False) -> _Node:
        node: Any = kind(*fields)
        node.lineno, node.col_offset, node.end_lineno, node.end_col_offset = self._place
        if mark:
            node.col_offset = node.end_col_offset = _MARK
            node.end_lineno = node.lineno
        made: _Node = node
        return made


def _called_attribute(node: _ast.expr | None) -> str:
    """The `b` of a call `a.b(...)`, else an empty string."""
    return node.func.attr if isinstance(node, _ast.Call) and isinstance(node.func, _ast.Attribute) else ""


def _is_unittest_main(node: _ast.expr) -> bool:
    if not isinstance(node, _ast.Call):
        return False
    called = node.func
    if isinstance(called, _ast.Attribute) and isinstance(called.value, _ast.Name):
        return called.attr == "main" and called.value.id == "unittest"
    return False


class _Tests:
    """Rewrites a tree in place. It goes through statements alone: expressions are most of a tree."""

    def __init__(self, placeholders: dict[str, str]) -> None:
        self._placeholders = placeholders
        self.total = 0
        self.methods = 0
        """Test methods of classes, by their names."""
        self.uses_main = False

    def rewrite(self, tree: _ast.Module) -> None:
        # A list of what is still to do: a chain of a thousand `elif` is as many blocks inside each other.
        blocks: list[list[_ast.stmt]] = [tree.body]
        while blocks:
            block = blocks.pop()
            for index, statement in enumerate(block):
                if isinstance(statement, _ast.ClassDef):
                    functions = (each for each in statement.body if isinstance(each, _ast.FunctionDef))
                    self.methods += sum(each.name.startswith("test") for each in functions)
                for field in _BLOCKS:
                    inner = getattr(statement, field, None)
                    if isinstance(inner, list):
                        blocks.append(inner)
                for clause in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                    blocks.append(clause.body)
                block[index] = self._replacement(statement)

    def _replacement(self, statement: _ast.stmt) -> _ast.stmt:
        new = _Builder(statement)
        if isinstance(statement, _ast.Assert):
            self.total += 1
            failing = new(_ast.Assert, self._constant(new, False), statement.msg)
            return new(_ast.If, statement.test, [self._report(new, True)], [self._report(new, False), failing])
        if isinstance(statement, _ast.With):
            if any(_UNITTEST_ASSERTION.fullmatch(_called_attribute(item.context_expr)) for item in statement.items):
                return self._watched(new, statement)
        elif isinstance(statement, _ast.Expr):
            if _UNITTEST_ASSERTION.fullmatch(_called_attribute(statement.value)):
                return self._watched(new, statement)
            if _is_unittest_main(statement.value):
                self.uses_main = True
                return new(_ast.Expr, new(_ast.Call, self._placed(new, "main"), [], []))
        return statement

    def _watched(self, new: _Builder, statement: _ast.stmt) -> _ast.stmt:
        """Around a statement that raises AssertionError to say that it failed."""
        self.total += 1
        body = [self._report(new, False), new(_ast.Raise, None, None)]
        handler = new(_ast.ExceptHandler, self._placed(new, "failure"), None, body)
        return new(_ast.Try, [statement], [handler], [self._report(new, True)], [])

    def _report(self, new: _Builder, holds: bool) -> _ast.stmt:
        call = new(_ast.Call, self._placed(new, "assertion"), [self._constant(new, holds)], [], mark=True)
        return new(_ast.Expr, call)

    def _placed(self, new: _Builder, name: str) -> _ast.expr:
        return self._constant(new, self._placeholders[name])

    @staticmethod
    def _constant(new: _Builder, value: object) -> _ast.expr:
        return new(_ast.Constant, value, None)


def _compile_tree(tree: _ast.Module) -> types.CodeType:
    """Compiles a tree of any depth that `compile` takes as text: as objects it is twice as deep for the interpreter."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5 * limit)
    try:
        return compile(tree, TESTS_FILE, "exec", dont_inherit=True)
    finally:
        sys.setrecursionlimit(limit)


def _with_objects(code: types.CodeType, objects: dict[str, object]) -> types.CodeType:
    constants: list[Any] = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            constants.append(_with_objects(constant, objects))
        else:
            constants.append(objects.get(constant, constant) if type(constant) is str else constant)
    return code.replace(co_consts=tuple(constants))


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code object and every one inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def sites(code: types.CodeType) -> Iterator[tuple[types.CodeType, int]]:
    """Every instruction of the tests that calls `assertion`: its code object and its offset, bytes."""
    for each in _nested(code):
        for index, (_, _, column, _) in enumerate(each.co_positions()):
            if column == _MARK:
                yield each, 2 * index


def compile_code(source: str, path: str = sources.PATH) -> types.CodeType:
    """Compiles the code part as it stands.

    Args:
        source: The code.
        path: Of its file.

    Raises:
        SyntaxError: And whatever else `compile` raises for a source that it cannot take (ValueError for a null
            byte, RecursionError and MemoryError for nesting).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, path, "exec", dont_inherit=True)


class CompiledTests:
    """The tests, ready to run.

    Attributes:
        code: Their code object.
        total: How many assertions stand in them.
        methods: How many test methods they define.
        uses_main: Whether they call `unittest.main()`, which runs these.
    """

    def __init__(self, source: str, unique: str, assertion: object, main: object) -> None:
        """Compiles.

        Args:
            source: The tests.
            unique: A text that they do not hold.
            assertion: Called where an assertion stands, with whether it holds.
            main: Called, without arguments, in the place of `unittest.main()`.

        Raises:
            SyntaxError: As `compile_code`.
        """
        placeholders = {name: f"{unique}:{name}" for name in ("assertion", "failure", "main")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(source, TESTS_FILE, "exec", _ONLY_TREE, dont_inherit=True)
            rewriting = _Tests(placeholders)
            rewriting.rewrite(tree)
            code = _compile_tree(tree)
        objects = {"assertion": assertion, "failure": AssertionError, "main": main}
        self.code = _with_objects(code, {placeholders[name]: value for name, value in objects.items()})
        self.total, self.methods, self.uses_main = rewriting.total, rewriting.methods, rewriting.uses_main
