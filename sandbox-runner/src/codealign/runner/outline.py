"""Determines which test methods must run, and what the tests lack if no assertion was executed.

Everything is read from the source text before the program starts, so the program cannot change it.
"""

from __future__ import annotations

import _ast
from collections.abc import Iterable

from codealign.runner.assertions import FUNCTIONS, Function, Names, blocks_of, nodes, statements

NONE_HELD, NONE_EXECUTED = "the tests contain no assertion", "ran to the end without executing an assertion"
_CASES = ("TestCase", "IsolatedAsyncioTestCase")
_NAMED = 3
"""Maximum number of names in a message."""
_Key = tuple[int, str]


def _key(function: Function) -> _Key:
    """Return the first line and the name of a function, as its code object has them."""
    return min([function.lineno, *(each.lineno for each in function.decorator_list)]), function.name


def _several(names: Iterable[str]) -> tuple[str, str]:
    """Return the names as a phrase, and the pronoun for them."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more, "it" if len(every) == 1 else "them"


def _test_methods(definition: _ast.ClassDef) -> list[Function]:
    """Return the final test methods of a class: if a name is defined twice, the last definition."""
    found: dict[str, Function | None] = {}
    for statement in definition.body:
        if isinstance(statement, FUNCTIONS):
            found[statement.name] = statement
        else:
            found.update(dict.fromkeys(_bound(statement)))
    return [each for name, each in found.items() if each is not None and name.startswith("test")]


def _bound(statement: _ast.stmt) -> set[str]:
    """Return the names that a statement binds or deletes, at any depth."""
    found = {
        each.id for each in nodes(statement) if isinstance(each, _ast.Name) and not isinstance(each.ctx, _ast.Load)
    }
    inner = (each for block in blocks_of(statement) for each in statements(block))
    return found | {each.name for each in inner if isinstance(each, (*FUNCTIONS, _ast.ClassDef))}


def _of_condition(statement: _ast.stmt) -> list[_ast.stmt]:
    return statement.body if isinstance(statement, _ast.If) else []


class Cases:
    """The unittest test cases that the tests define.

    Args:
        tree: The tests as written, before rewriting.
        source: Their text.
        names: The names used in them.

    Attributes:
        required: Test methods that a run of all test cases must execute.
        loads_tests: Whether the tests define `load_tests`.
        last_main: Line of the last module-level `unittest.main()` statement, or 0.
    """

    def __init__(self, tree: _ast.Module, source: str, names: Names) -> None:
        self._names = names
        self._has_skips = "skip" in source.lower()
        self.loads_tests = any(isinstance(each, FUNCTIONS) and each.name == "load_tests" for each in tree.body)
        every = list(statements(tree.body))
        self._classes = {each.name: each for each in every if isinstance(each, _ast.ClassDef)}
        functions = [each for each in every if isinstance(each, FUNCTIONS)]
        self._skipped = {_key(each) for each in functions if self._mentions_skip(each)}
        self._skipped_classes = {
            name for name, each in self._classes.items() if any(map(self._is_skip, each.decorator_list))
        }
        # A skip in `setUp`, in a helper or at module level may apply to any test.
        self._any_is_skipped = any(not name.startswith("test") for _, name in self._skipped) or any(
            self._mentions_skip(each) for each in tree.body if not isinstance(each, (*FUNCTIONS, _ast.ClassDef))
        )
        self.required = self._required(tree)
        of_module = [inner for each in tree.body for inner in (each, *_of_condition(each))]
        self.last_main = max(
            (each.lineno for each in of_module if isinstance(each, _ast.Expr) and names.is_main(each.value)),
            default=0,
        )

    def _required(self, tree: _ast.Module) -> set[_Key]:
        last: dict[str, _ast.ClassDef | None] = {}
        for statement in tree.body:
            if isinstance(statement, _ast.ClassDef):
                last[statement.name] = statement
            elif not isinstance(statement, FUNCTIONS):
                last.update(dict.fromkeys(_bound(statement)))
        found: set[_Key] = set()
        for definition in last.values():
            if definition is not None and self._is_plain(definition) and self._is_concrete_case(definition):
                found |= {_key(each) for each in _test_methods(definition) if self._is_plain(each)}
        return found

    def may_be_skipped(self, method: _Key | None, classes: Iterable[str]) -> bool:
        """Return whether the author of the tests may have skipped a test.

        Args:
            method: First line and name of the test function, if it has one.
            classes: Names of its class and the base classes.
        """
        return self._any_is_skipped or method in self._skipped or not self._skipped_classes.isdisjoint(classes)

    def _is_skip(self, decorator: _ast.expr) -> bool:
        path = self._names.path(decorator.func if isinstance(decorator, _ast.Call) else decorator)
        return path.startswith("unittest.") and path.rpartition(".")[2].startswith("skip")

    def _mentions_skip(self, tree: _ast.AST) -> bool:
        for node in nodes(tree) if self._has_skips else ():
            if isinstance(node, _ast.Attribute) and node.attr == "skipTest":
                return True
            if isinstance(node, (_ast.Attribute, _ast.Name)) and (
                self._names.path(node).rpartition(".")[2] == "SkipTest" or self._is_skip(node)
            ):
                return True
        return False

    def _is_plain(self, definition: Function | _ast.ClassDef) -> bool:
        """Return whether no decorator replaces the definition."""
        return all(self._is_known(each) for each in definition.decorator_list)

    def _is_known(self, decorator: _ast.expr) -> bool:
        path = self._names.path(decorator.func if isinstance(decorator, _ast.Call) else decorator)
        return path == "unittest.expectedFailure" or self._is_skip(decorator) or path.startswith("unittest.mock.patch")

    def _is_concrete_case(self, definition: _ast.ClassDef) -> bool:
        """Return whether a class visibly derives from TestCase and none of its methods is abstract."""
        waiting, known = [definition], {definition.name}
        is_case = False
        while waiting:
            current = waiting.pop()
            for each in current.body:
                if isinstance(each, FUNCTIONS) and any(map(self._is_abstract, each.decorator_list)):
                    return False
            for base in current.bases:
                name = self._names.path(base).rpartition(".")[2]
                is_case = is_case or name in _CASES
                if name in self._classes and name not in known:
                    known.add(name)
                    waiting.append(self._classes[name])
        return is_case

    def _is_abstract(self, decorator: _ast.expr) -> bool:
        return self._names.path(decorator).rpartition(".")[2].startswith("abstract")


def missing(tree: _ast.Module, names: Names) -> str:
    """Explain what tests lack that run to the end without executing an assertion; "" if the reason is unclear.

    Args:
        tree: The tests as written.
        names: The names used in them.
    """
    every = list(nodes(tree))
    used = {each.id for each in every if isinstance(each, _ast.Name) and isinstance(each.ctx, _ast.Load)}
    found: list[str] = []
    functions = [each for each in tree.body if isinstance(each, FUNCTIONS) and each.name not in used]
    uncalled = [each.name for each in functions if each.name.startswith("test") or _asserts(each, names)]
    if uncalled and "globals" not in used:
        told, them = _several(uncalled)
        found.append(f"the tests define {told} and nothing calls {them}")
    if not any(names.is_main(each) or _is_run(each) for each in every):
        for each in tree.body:
            if isinstance(each, _ast.ClassDef) and each.name not in used and (count := len(_test_methods(each))):
                methods, them = ("test method", "it") if count == 1 else ("test methods", "them")
                found.append(f"class {each.name} has {count} {methods} and nothing runs {them}")
    if not found and _prints(tree, names) and not _asserts(tree, names):
        return "the tests only print"
    return "; ".join(found[:_NAMED])


def _asserts(tree: _ast.AST, names: Names) -> bool:
    return any(
        isinstance(each, _ast.Assert)
        or names.is_assertion(each)
        or (isinstance(each, _ast.Raise) and names.fails(each))
        for each in nodes(tree)
    )


def _is_run(node: _ast.AST) -> bool:
    return isinstance(node, _ast.Call) and isinstance(node.func, _ast.Attribute) and node.func.attr in ("run", "debug")


def _prints(tree: _ast.Module, names: Names) -> bool:
    return any(isinstance(each, _ast.Call) and names.path(each.func) == "print" for each in nodes(tree))
