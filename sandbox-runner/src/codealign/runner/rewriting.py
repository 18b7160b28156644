"""Rewrites the syntax tree of the tests so that each assertion reports when it runs; see `instrument`."""

from __future__ import annotations

import _ast
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from codealign.runner.assertions import FUNCTIONS, LOOPS, Names, blocks_of

MARK = 31_000
"""A column that real source code is unlikely to have. If it does, the instruction is not a call of a witness."""
WITNESSES = ("assertion", "checked", "ran", "main")
OBJECTS = (*WITNESSES, "failure", "exit")
"""Objects that the rewritten tests call, inserted after compilation."""
_IN_EXPRESSIONS = re.compile(r"\bassert[A-Z_]|\bfail|\bmain\b|\brun\b|unittest")
"""Only if the text matches does it pay to walk its expressions, which make up most of a tree."""
_OF_BLOCKS = (_ast.stmt, _ast.excepthandler, _ast.match_case)
_LEAVING = (_ast.Return, _ast.Continue, _ast.Break)
_Node = TypeVar("_Node", bound=_ast.AST)


class _Builder:
    """Creates nodes at the position of another node, so that tracebacks show the program's own line."""

    def __init__(self, at: _ast.stmt | _ast.expr, placeholders: dict[str, str]) -> None:
        self._place = (at.lineno, at.col_offset, at.end_lineno, at.end_col_offset)
        self._placeholders = placeholders

    def __call__(self, kind: Callable[..., _Node], *fields: object) -> _Node:
        node: Any = kind(*fields)
        node.lineno, node.col_offset, node.end_lineno, node.end_col_offset = self._place
        made: _Node = node
        return made

    def placed(self, name: str) -> _ast.expr:
        return self.constant(self._placeholders[name])

    def constant(self, value: object) -> _ast.expr:
        return self(_ast.Constant, value, None)

    def name(self, name: str) -> _ast.expr:
        return self(_ast.Name, name, _ast.Load())

    def function(self, arguments: list[str], body: _ast.expr, *, rest: bool = False) -> _ast.expr:
        """Create a lambda. With `rest` it also takes `*a, **k`."""
        named = [self(_ast.arg, name, None, None) for name in arguments]
        more = [self(_ast.arg, name, None, None) if rest else None for name in ("a", "k")]
        return self(_ast.Lambda, _ast.arguments([], named, more[0], [], [], more[1], []), body)

    def report(self, holds: bool) -> _ast.stmt:
        call = self(_ast.Call, self.placed("assertion"), [self.constant(holds)], [])
        return self(_ast.Expr, marked(call))


def marked(call: _ast.Call) -> _ast.Call:
    """Mark a call as a call of a witness and return it."""
    # In a very long line, a call may begin after the mark, and `compile` refuses a range that ends before it begins.
    call.col_offset = min(call.col_offset, MARK)
    call.end_lineno, call.end_col_offset = call.lineno, MARK
    return call


class _Place(NamedTuple):
    """Context of a block."""

    quiet: bool = False
    """Statements in the block are expected to fail."""
    nested: bool = False
    """An enclosing statement decides whether the block runs."""


class Rewriting:
    """Rewrites a tree in place.

    Args:
        tree: The tests.
        source: Their text.
        names: The names used in them.
        placeholders: For each of `OBJECTS`, the text that stands for it.

    Attributes:
        total: Number of assertions in the tests.
        uses_mock: Whether some of them are assertions of a mock.
    """

    def __init__(self, tree: _ast.Module, source: str, names: Names, placeholders: dict[str, str]) -> None:
        self.total = 0
        self.uses_mock = False
        self._guarded: set[int] = set()
        """Statements that fail and are reached only if no condition leaves their block."""
        self._exits: set[int] = set()
        """Exits that depend on the outcome of test cases."""
        self._chains: dict[int, bool] = {}
        """Whether the chain of branches that begins with a statement has one that fails."""
        self._names, self._placeholders = names, placeholders
        self._has_expressions = _IN_EXPRESSIONS.search(source) is not None
        # An explicit work list: a chain of a thousand `elif` nests as many blocks.
        waiting = [(tree.body, _Place())]
        while waiting:
            block, place = waiting.pop()
            rewritten: list[_ast.stmt] = []
            for statement in block:
                waiting += [(inner, self._inside(statement, inner, place)) for inner in blocks_of(statement)]
                rewritten += [statement] if place.quiet else self._statement(statement, place)
            block[:] = rewritten

    def _inside(self, statement: _ast.stmt, block: list[_ast.stmt], place: _Place) -> _Place:
        is_body = block is getattr(statement, "body", None)
        quiet = place.quiet or (is_body and self._names.expects_failure(statement))
        return _Place(quiet, not isinstance(statement, (*FUNCTIONS, _ast.ClassDef)))

    def _new(self, at: _ast.stmt | _ast.expr) -> _Builder:
        return _Builder(at, self._placeholders)

    def _statement(self, statement: _ast.stmt, place: _Place) -> list[_ast.stmt]:
        new = self._new(statement)
        if isinstance(statement, (_ast.If, _ast.Match, *LOOPS, *FUNCTIONS)):
            self._count_conditions(statement)
        exits = isinstance(statement, _ast.Raise) and self._names.exits_with_outcome(statement.exc)
        if self._has_expressions:
            self._exits.update(map(id, self._names.exits_on_outcome(statement)))
            self._expressions(statement)
        if isinstance(statement, _ast.Assert):
            self.total += 1
            failing = new(_ast.Assert, new.constant(False), statement.msg)
            return [new(_ast.If, statement.test, [new.report(True)], [new.report(False), failing])]
        if isinstance(statement, _ast.With) and any(
            self._names.is_assertion(item.context_expr) for item in statement.items
        ):
            return [self._watched(new, statement)]
        if isinstance(statement, _ast.Raise) and statement.exc is not None:
            if exits and isinstance(statement.exc, _ast.Call):
                statement.exc.func = new.placed("exit")
                return [new(_ast.Expr, self._exit(statement.exc))]
            if self._names.is_failure(statement.exc) and (place.nested or id(statement) in self._guarded):
                self.total += 1
                return [new.report(False), statement]
        return [statement]

    def _count_conditions(self, statement: _ast.stmt) -> None:
        """Where one branch of a statement fails, make the other branches report that the assertion held."""
        fails = self._names.block_fails
        if isinstance(statement, _ast.If):
            self._count_branches(statement)
        elif isinstance(statement, _ast.Match):
            if any(fails(case.body) for case in statement.cases):
                for case in statement.cases:
                    if not fails(case.body):
                        case.body.insert(0, self._new(case.body[0]).report(True))
        elif isinstance(statement, LOOPS):
            if fails(statement.orelse):
                self._report_before(statement.body, (_ast.Break,))
            self._count_ways_out(statement.body, _LEAVING)
        elif isinstance(statement, FUNCTIONS):
            self._count_ways_out(statement.body, (_ast.Return,))

    def _count_branches(self, statement: _ast.If) -> None:
        fails = self._names.block_fails
        chained = len(statement.orelse) == 1 and isinstance(statement.orelse[0], _ast.If)
        if not (fails(statement.body) or fails(statement.orelse) or (chained and self._may_fail(statement.orelse[0]))):
            return
        new = self._new(statement)
        if not fails(statement.body):
            statement.body.insert(0, new.report(True))
        if not fails(statement.orelse) and not (chained and self._may_fail(statement.orelse[0])):
            statement.orelse.insert(0, new.report(True))

    def _may_fail(self, statement: _ast.stmt) -> bool:
        """Return whether any branch of a chain fails. Remembered, because it is asked for every part of a chain."""
        passed: list[int] = []
        fails = False
        while isinstance(statement, _ast.If):
            known = self._chains.get(id(statement))
            if known is not None:
                fails = known
                break
            passed.append(id(statement))
            fails = self._names.block_fails(statement.body) or self._names.block_fails(statement.orelse)
            if fails or len(statement.orelse) != 1:
                break
            statement = statement.orelse[0]
        self._chains.update(dict.fromkeys(passed, fails))
        return fails

    def _count_ways_out(self, block: list[_ast.stmt], kinds: tuple[type, ...]) -> None:
        """Handle a block that fails at its end unless a condition leaves it earlier."""
        if len(block) > 1 and self._names.fails(block[-1]) and self._report_before(block[:-1], kinds):
            self._guarded.add(id(block[-1]))

    def _report_before(self, block: list[_ast.stmt], kinds: tuple[type, ...]) -> bool:
        """Make each early exit of a block report that the assertion held. Skips `try`, which has no condition."""
        through = (_ast.If, _ast.Match, _ast.With, *(LOOPS if kinds == (_ast.Return,) else ()))
        found = False
        waiting = [inner for statement in block if isinstance(statement, through) for inner in blocks_of(statement)]
        while waiting:
            inner = waiting.pop()
            for index in range(len(inner) - 1, -1, -1):
                statement = inner[index]
                if isinstance(statement, kinds):
                    found = True
                    inner.insert(index, self._new(statement).report(True))
                elif isinstance(statement, through):
                    waiting.extend(blocks_of(statement))
        return found

    def _watched(self, new: _Builder, statement: _ast.stmt) -> _ast.stmt:
        """Wrap a statement that raises AssertionError to report its failure."""
        self.total += 1
        body = [new.report(False), new(_ast.Raise, None, None)]
        handler = new(_ast.ExceptHandler, new.placed("failure"), None, body)
        return new(_ast.Try, [statement], [handler], [new.report(True)], [])

    def _expressions(self, statement: _ast.stmt) -> None:
        """Rewrite the expressions of a statement, but not those of nested statements."""
        found: list[tuple[_ast.AST, str, int | None, Callable[[Any], _ast.expr]]] = []
        waiting: list[_ast.AST] = [statement]
        while waiting:
            node = waiting.pop()
            for field in node._fields:
                value = getattr(node, field, None)
                children = value if isinstance(value, list) else [value]
                for index, child in enumerate(children):
                    if isinstance(child, _ast.AST) and not isinstance(child, _OF_BLOCKS):
                        waiting.append(child)
                        change = self._change(node, child)
                        if change is not None:
                            found.append((node, field, index if children is value else None, change))
        # Innermost first, so that outer expressions contain the rewritten inner ones.
        for node, field, index, change in reversed(found):
            value = getattr(node, field)
            if index is None:
                setattr(node, field, change(value))
            else:
                value[index] = change(value[index])

    def _change(self, parent: _ast.AST, node: _ast.AST) -> Callable[[Any], _ast.expr] | None:
        """Return the function that rewrites an expression, or None if it needs no rewriting."""
        if isinstance(node, _ast.Attribute):
            called = isinstance(parent, _ast.Call) and parent.func is node
            loaded = isinstance(node.ctx, _ast.Load)
            return self._bound if loaded and not called and self._names.is_method(node) else None
        if not isinstance(node, _ast.Call):
            return None
        if self._names.is_main(node):
            return self._main
        if self._names.is_assertion(node):
            return None if isinstance(parent, _ast.withitem) else self._checked
        if id(node) in self._exits or self._names.exits_with_outcome(node):
            return None if isinstance(parent, _ast.Raise) else self._exit
        return self._ran if isinstance(node.func, _ast.Attribute) and node.func.attr == "run" else None

    def _main(self, node: _ast.Call) -> _ast.expr:
        node.func = self._new(node).placed("main")
        return marked(node)

    def _checked(self, node: _ast.Call) -> _ast.expr:
        self.total += 1
        self.uses_mock = self.uses_mock or self._names.is_mocks(node.func)
        return self._called_by("checked", node)

    def _ran(self, node: _ast.Call) -> _ast.expr:
        return self._called_by("ran", node)

    def _called_by(self, witness: str, node: _ast.Call) -> _ast.expr:
        node.args = [node.func, *node.args]
        node.func = self._new(node).placed(witness)
        return marked(node)

    def _bound(self, node: _ast.Attribute) -> _ast.expr:
        """Rewrite an assertion bound to a name, as in `check = self.assertEqual`, so that each call of it counts."""
        self.total += 1
        new = self._new(node)
        a = new(_ast.Starred, new.name("a"), _ast.Load())
        k = new(_ast.keyword, None, new.name("k"))
        call = marked(new(_ast.Call, new.placed("checked"), [new.name("bound"), a], [k]))
        return new(_ast.Call, new.function(["bound"], new.function([], call, rest=True)), [node], [])

    def _exit(self, node: _ast.Call) -> _ast.expr:
        """Rewrite an exit that depends on test outcomes so that it ends the program only on failure."""
        new = self._new(node)
        (status,) = node.args
        if isinstance(status, _ast.Call) and status.end_col_offset == MARK:
            return status  # `sys.exit(unittest.main())`: here `main` ends the program
        leave = new(_ast.Call, node.func, [new.name("status")], [])
        body = new(_ast.BoolOp, _ast.And(), [new.name("status"), leave])
        return new(_ast.Call, new.function(["status"], body), [status], [])
