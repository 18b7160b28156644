"""Defines what counts as an assertion in a program's tests. Verdicts, and therefore selection, rest on this definition.

Assertions are:

- `assert condition`;
- a call of an assertion method of unittest, of a mock, or of `numpy.testing`;
- `raise AssertionError`, `assert False` or `self.fail()` where a condition decides whether it is reached: such a
  condition is equivalent to `assert not condition`.
"""

from __future__ import annotations

import _ast
import re
from collections.abc import Iterator

_UNITTEST = re.compile(r"assert[A-Z]\w*|assert_|fail(?:If|Unless)\w*")
_OF_A_LIBRARY = re.compile(r"(?:numpy|pandas)\.testing\.assert_\w+")
_OF_A_MOCK = re.compile(
    r"assert_(?:(?:not_|any_)?(?:called|awaited|call|await)|(?:called|awaited)(?:_once)?(?:_with)?|has_(?:calls|awaits))"
)
_MAINS = frozenset({"unittest.main", "unittest.main.main", "unittest.TestProgram", "unittest.main.TestProgram"})
_EXITS = frozenset({"sys.exit", "exit", "quit", "SystemExit"})
_MAY_EXIT = re.compile(r"xit\b|\bquit\b")
_OUTCOMES = frozenset({"wasSuccessful", "failures", "errors", "unexpectedSuccesses"})
_CASES = ("self", "cls")
"""Many objects have a `fail` method; only these names are taken for a test case."""
_STAR = (
    "main",
    "TestProgram",
    "TestCase",
    "IsolatedAsyncioTestCase",
    "skip",
    "skipIf",
    "skipUnless",
    "expectedFailure",
)
_IMPORTED_BY_THE_CODE = {"unittest": "unittest", "mock": "unittest.mock", "np": "numpy", "numpy": "numpy", "sys": "sys"}
"""Meaning of names that the tests use but do not bind."""
BLOCKS = ("body", "orelse", "finalbody")
Function = _ast.FunctionDef | _ast.AsyncFunctionDef
FUNCTIONS = (_ast.FunctionDef, _ast.AsyncFunctionDef)
LOOPS = (_ast.For, _ast.AsyncFor, _ast.While)


def blocks_of(statement: _ast.stmt) -> Iterator[list[_ast.stmt]]:
    """Yield the blocks of a compound statement."""
    for field in BLOCKS:
        inner = getattr(statement, field, None)
        if isinstance(inner, list):
            yield inner
    for clause in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield clause.body


def statements(block: list[_ast.stmt]) -> Iterator[_ast.stmt]:
    """Yield all statements of a block, nested ones included. Not recursive: a chain of `elif` may be long."""
    waiting = [block]
    while waiting:
        for statement in waiting.pop():
            yield statement
            waiting.extend(blocks_of(statement))


def nodes(root: _ast.AST) -> Iterator[_ast.AST]:
    """Yield all nodes of a tree."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                waiting += [item for item in value if isinstance(item, _ast.AST)]
            elif isinstance(value, _ast.AST):
                waiting.append(value)


class Names:
    """Resolves the names used in the tests.

    Args:
        tree: The parsed tests.
        source: Their text.

    Attributes:
        defined: Functions and methods defined in the tests. The assertions inside them count; calls of them do not.
    """

    def __init__(self, tree: _ast.Module, source: str) -> None:
        self.defined: set[str] = set()
        self._imported = dict(_IMPORTED_BY_THE_CODE)
        self._errors = {"AssertionError"}
        self._outcomes: set[str] = set()
        every = list(statements(tree.body))
        for statement in every:
            if isinstance(statement, _ast.Import):
                self._import(statement)
            elif isinstance(statement, _ast.ImportFrom) and not statement.level:
                self._import_from(statement)
        for statement in every:
            if isinstance(statement, FUNCTIONS):
                self.defined.add(statement.name)
            elif isinstance(statement, _ast.ClassDef) and any(self.is_failure(base) for base in statement.bases):
                self._errors.add(statement.name)
        for name in self.defined & self._imported.keys():
            del self._imported[name]
        self._may_exit = _MAY_EXIT.search(source) is not None
        if self._may_exit:
            # Two passes: a function may refer to an outcome that is defined further down.
            for _ in range(2):
                self._find_outcomes(every)

    def _import(self, statement: _ast.Import) -> None:
        for each in statement.names:
            top = each.name.partition(".")[0]
            self._imported[each.asname or top] = each.name if each.asname else top

    def _import_from(self, statement: _ast.ImportFrom) -> None:
        for each in statement.names:
            if each.name != "*":
                self._imported[each.asname or each.name] = f"{statement.module}.{each.name}"
            elif statement.module == "unittest":
                self._imported.update({name: f"unittest.{name}" for name in _STAR})

    def path(self, node: _ast.expr | None) -> str:
        """Return the dotted name of an expression, resolved by the imports, or "" if the expression is not a name."""
        parts: list[str] = []
        while isinstance(node, _ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, _ast.Name):
            return ""
        parts.append(self._imported.get(node.id, node.id))
        return ".".join(reversed(parts))

    def is_assertion(self, node: _ast.AST) -> bool:
        """Return whether an expression calls an assertion."""
        if not isinstance(node, _ast.Call):
            return False
        called = node.func
        if isinstance(called, _ast.Attribute):
            if self.is_mocks(called) or self.is_method(called):
                return True
            if called.attr == "fail":
                return isinstance(called.value, _ast.Name) and called.value.id in _CASES and "fail" not in self.defined
        return _OF_A_LIBRARY.fullmatch(self.path(called)) is not None

    def is_method(self, node: _ast.Attribute) -> bool:
        """Return whether an attribute is a unittest assertion method of a test case."""
        return _UNITTEST.fullmatch(node.attr) is not None and (
            node.attr not in self.defined or self._is_super(node.value)
        )

    def is_mocks(self, node: _ast.AST) -> bool:
        """Return whether an expression is an assertion method of a mock."""
        if not isinstance(node, _ast.Attribute) or node.attr in self.defined:
            return False
        return _OF_A_MOCK.fullmatch(node.attr) is not None

    def _is_super(self, node: _ast.expr) -> bool:
        return isinstance(node, _ast.Call) and self.path(node.func) == "super"

    def is_main(self, node: _ast.AST) -> bool:
        """Return whether an expression calls `unittest.main`."""
        return isinstance(node, _ast.Call) and self.path(node.func) in _MAINS

    def is_failure(self, node: _ast.expr | None) -> bool:
        """Return whether an expression is AssertionError, a subclass defined in the tests, or an instance of either."""
        if isinstance(node, _ast.Call):
            node = node.func
        if isinstance(node, _ast.Attribute) and node.attr == "failureException":
            return True
        return self.path(node).removeprefix("builtins.") in self._errors

    def fails(self, statement: _ast.stmt) -> bool:
        """Return whether the only effect of a statement is to report a failed test."""
        if isinstance(statement, _ast.Raise):
            return self.is_failure(statement.exc)
        if isinstance(statement, _ast.Assert):
            return isinstance(statement.test, _ast.Constant) and not statement.test.value
        if not isinstance(statement, _ast.Expr) or not isinstance(statement.value, _ast.Call):
            return False
        called = statement.value.func
        return isinstance(called, _ast.Attribute) and called.attr == "fail" and self.is_assertion(statement.value)

    def block_fails(self, block: list[_ast.stmt]) -> bool:
        """Return whether a block always reports a failed test when it runs."""
        return any(self.fails(statement) for statement in block)

    def seems_to_assert(self, statement: _ast.stmt) -> bool:
        """Return whether a module-level statement seems to assert: an assertion, or a call of a tests' function."""
        if not isinstance(statement, _ast.Expr) or not isinstance(statement.value, _ast.Call):
            return isinstance(statement, _ast.Assert)
        called = statement.value.func
        return isinstance(called, _ast.Name) and called.id in self.defined

    def expects_failure(self, statement: _ast.stmt) -> bool:
        """Return whether the body of a statement is expected to fail, so that the statement fails if the body does not.

        This is so for a method with `expectedFailure`, for `with self.assertRaises(AssertionError)`, and for a `try`
        that catches AssertionError and fails in its `else`.
        """
        if isinstance(statement, FUNCTIONS):
            return any(self.path(each) == "unittest.expectedFailure" for each in statement.decorator_list)
        if isinstance(statement, _ast.With):
            calls = [each.context_expr for each in statement.items if isinstance(each.context_expr, _ast.Call)]
            return any(
                isinstance(call.func, _ast.Attribute)
                and call.func.attr.startswith("assertRaises")
                and self._is_caught(call.args[0] if call.args else None)
                for call in calls
            )
        if not isinstance(statement, _ast.Try) or not self.block_fails(statement.orelse):
            return False
        return any(self._is_caught(each.type) and not self._raises(each.body) for each in statement.handlers)

    def _is_caught(self, node: _ast.expr | None) -> bool:
        kinds = node.elts if isinstance(node, _ast.Tuple) else [node]
        return any(self.is_failure(kind) for kind in kinds)

    @staticmethod
    def _raises(block: list[_ast.stmt]) -> bool:
        return any(isinstance(statement, _ast.Raise) for statement in block)

    def _is_exit(self, node: _ast.Call) -> bool:
        return len(node.args) == 1 and not node.keywords and self.path(node.func) in _EXITS

    def _find_outcomes(self, every: list[_ast.stmt]) -> None:
        """Find variables that store the outcome of a test run, and functions that return it."""
        for statement in every:
            if isinstance(statement, _ast.Assign) and self.is_outcome(statement.value):
                self._outcomes |= {target.id for target in statement.targets if isinstance(target, _ast.Name)}
            elif isinstance(statement, FUNCTIONS):
                returned = [each.value for each in statements(statement.body) if isinstance(each, _ast.Return)]
                if any(value is not None and self.is_outcome(value) for value in returned):
                    self._outcomes.add(statement.name)

    def is_outcome(self, node: _ast.AST) -> bool:
        """Return whether an expression depends on the outcome of a test run."""
        for each in nodes(node):
            if isinstance(each, _ast.Name) and each.id in self._outcomes:
                return True
            if (isinstance(each, _ast.Attribute) and each.attr in _OUTCOMES) or self.is_main(each):
                return True
        return False

    def exits_on_outcome(self, statement: _ast.stmt) -> Iterator[_ast.Call]:
        """Yield the exit calls in the branches of a condition on the outcome of a test run."""
        if not self._may_exit or not isinstance(statement, _ast.If) or not self.is_outcome(statement.test):
            return
        for each in (*statement.body, *statement.orelse):
            if isinstance(each, _ast.Expr) and isinstance(each.value, _ast.Call) and self._is_exit(each.value):
                yield each.value

    def exits_with_outcome(self, node: _ast.AST | None) -> bool:
        """Return whether an expression exits with a status that depends on the outcome of a test run."""
        return isinstance(node, _ast.Call) and self._is_exit(node) and self.is_outcome(node.args[0])
