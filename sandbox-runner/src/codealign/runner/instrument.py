"""Compiles a program so that its tests' assertions report themselves.

Standard library only. An assertion of the tests, `assert condition, message`, becomes

    if condition:
        <witness>(<event>, PASSED)
    else:
        <witness>(<event>, FAILED)
        assert False, message

so that it counts where it stands: a handler that swallows the AssertionError swallows nothing that matters. A call
of one of unittest's assertions (`self.assertEqual(...)`) becomes the same by a try statement around it. Assertions
of the code are left alone: a precondition that the tests provoke and catch is no failure, and one that nothing
catches ends the program and is seen there.

What stands in angle brackets are constants of the code object, not names that a program could bind again.
"""

import ast
import enum
import sys
import types
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

CODE_FILE, TESTS_FILE = "<code>", "<tests>"


class Kind(enum.IntEnum):
    """What a report of the harness says; see `witness`."""

    BEGAN = 0
    PASSED = 1
    FAILED = 2
    ENDED = 3
    RAISED = 4
    UNCOMPILED = 5
    UNASSERTED = 6


# Constants that stand in the tree for objects that no source can name; `_with_objects` puts these in.
_WITNESS = "codealign:witness"
_EVENT = "codealign:event"
_FAILURE = "codealign:failure"
_REQUIRE = "codealign:require"

_UNITTEST_ASSERTIONS = frozenset(name for name in dir(unittest.TestCase) if name.startswith("assert")) | {"fail"}


class UnittestError(Exception):
    """A test method of `unittest.main()` raised something that is no failed assertion."""


def _require_success(program: unittest.TestProgram) -> None:
    errors = program.result.errors
    if errors:
        last_line = errors[0][1].strip().rpartition("\n")[2]
        raise UnittestError(f"{len(errors)} of {program.result.testsRun} tests raised; the first: {last_line}")


def _report(kind: Kind) -> ast.stmt:
    return ast.Expr(ast.Call(ast.Constant(_WITNESS), [ast.Constant(_EVENT), ast.Constant(int(kind))], []))


def _placed(statement: ast.stmt, at: ast.stmt) -> ast.stmt:
    """Gives every new node the place of the statement that it replaces: tracebacks then show the program's line."""
    for node in ast.walk(statement):
        if "lineno" in node._attributes and not hasattr(node, "lineno"):
            ast.copy_location(node, at)
    return statement


def _called_attribute(node: ast.expr) -> str:
    """The `b` of a call `a.b(...)`, else an empty string."""
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


class _Assertions(ast.NodeTransformer):
    """Rewrites assertions and counts them. It looks at statements alone: expressions are most of a tree."""

    def __init__(self) -> None:
        self.total = 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                block[:] = [self.visit(child) for child in block]
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        self.total += 1
        failing = ast.Assert(ast.Constant(False), node.msg)
        return _placed(ast.If(node.test, [_report(Kind.PASSED)], [_report(Kind.FAILED), failing]), node)

    def visit_With(self, node: ast.With) -> ast.AST:
        self.generic_visit(node)
        if any(_called_attribute(item.context_expr) in _UNITTEST_ASSERTIONS for item in node.items):
            return self._witnessed(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        attribute = _called_attribute(node.value)
        if attribute in _UNITTEST_ASSERTIONS:
            return self._witnessed(node)
        if attribute == "main" and ast.unparse(node.value).startswith("unittest.main("):
            return self._main_that_returns(node)
        return node

    def _witnessed(self, node: ast.stmt) -> ast.stmt:
        """Around a statement that raises AssertionError to say that it failed."""
        self.total += 1
        handler = ast.ExceptHandler(ast.Constant(_FAILURE), None, [_report(Kind.FAILED), ast.Raise()])
        return _placed(ast.Try([node], [handler], [_report(Kind.PASSED)], []), node)

    def _main_that_returns(self, node: ast.Expr) -> ast.stmt:
        """`unittest.main()` ends the interpreter; here it returns, and what its tests raised is raised."""
        call = node.value
        assert isinstance(call, ast.Call)
        call.keywords = [keyword for keyword in call.keywords if keyword.arg != "exit"]
        call.keywords.append(ast.keyword("exit", ast.Constant(False)))
        return _placed(ast.Expr(ast.Call(ast.Constant(_REQUIRE), [call], [])), node)


def _with_objects(code: types.CodeType, objects: dict[str, object]) -> types.CodeType:
    constants: list[Any] = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            constants.append(_with_objects(constant, objects))
        else:
            constants.append(objects.get(constant, constant) if type(constant) is str else constant)
    return code.replace(co_consts=tuple(constants))


def nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code object and every one inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested(constant)


def compile_code(source: str) -> types.CodeType:
    """Compiles the code part as it stands.

    Raises:
        SyntaxError: And whatever else `compile` raises for a source that it cannot take (ValueError for a null
            byte, RecursionError and MemoryError for nesting).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, CODE_FILE, "exec", dont_inherit=True)


def compile_tests(source: str, event: str) -> tuple[types.CodeType, int]:
    """Compiles the tests with their assertions made to report.

    Args:
        source: The tests.
        event: The name of the audit event that carries the reports; unguessable, one per execution.

    Returns:
        The code object, and how many assertions stand in it.

    Raises:
        SyntaxError: As `compile_code`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source, TESTS_FILE)
        assertions = _Assertions()
        assertions.visit(tree)
        code = compile(tree, TESTS_FILE, "exec", dont_inherit=True)
    objects = {_WITNESS: sys.audit, _EVENT: event, _FAILURE: AssertionError, _REQUIRE: _require_success}
    return _with_objects(code, objects), assertions.total
