"""Compiles a program so that its tests' assertions report themselves.

Standard library only, and little of it: every module that is imported here is in the memory that each execution
copies. An assertion of the tests, `assert condition, message`, becomes

    if condition:
        <assertion>(True)
    else:
        <assertion>(False)
        assert False, message

so that it counts where it stands: a handler that swallows the AssertionError swallows nothing that matters. A call
of one of unittest's assertions, `self.assertEqual(a, b)`, becomes `<checked>(self.assertEqual, a, b)`, which calls it
and says what came of it; where it stands in a `with`, a try statement around that says the same. Where one branch of
a condition does nothing but fail (`raise AssertionError`), the others begin with `<assertion>(True)`. Assertions of
the code are left alone: a precondition that the tests provoke and catch is no failure, and one that nothing catches
ends the program and is seen there.

What stands in angle brackets are constants of the code object, not names that a program could bind again. Each call
of a witness bears a mark in its source position; `sites` finds the instructions that have it, and from others than
these a call counts nothing. `assertions` says what an assertion is, `rewriting` puts the witnesses in place.
"""

from __future__ import annotations

import _ast
import opcode
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from codealign.runner import outline, sources
from codealign.runner.assertions import Names
from codealign.runner.rewriting import MARK, OBJECTS, WITNESSES, Rewriting

__all__ = ("TESTS_FILE", "WITNESSES", "CompiledTests", "compile_code", "nested", "sites")
TESTS_FILE = "<tests>"
_CALLS = frozenset(number for name, number in opcode.opmap.items() if "CALL" in name)
_ONLY_TREE = 0x400
"""ast.PyCF_ONLY_AST."""


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


def nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code object and every one inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested(constant)


def sites(code: types.CodeType) -> Iterator[tuple[types.CodeType, int]]:
    """Every instruction of the tests that calls a witness: its code object and its offset, bytes."""
    for each in nested(code):
        instructions = each.co_code
        for index, (_, _, _, column) in enumerate(each.co_positions()):
            # What unpacks the arguments of a call has its position too.
            if column == MARK and instructions[2 * index] in _CALLS:
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
        missing: What to say if none of these is executed.
        cases: The test cases that they define; None where nothing in them is of unittest.
        uses_mock: Whether an assertion of a mock stands in them.
    """

    def __init__(self, source: str, unique: str, objects: Mapping[str, object], *, unittest: bool) -> None:
        """Compiles.

        Args:
            source: The tests.
            unique: A text that they do not hold.
            objects: The witnesses, by their names in `rewriting.WITNESSES`.
            unittest: Whether they may use it.

        Raises:
            SyntaxError: As `compile_code`.
        """
        placeholders = {name: f"{unique}:{name}" for name in OBJECTS}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(source, TESTS_FILE, "exec", _ONLY_TREE, dont_inherit=True)
            names = Names(tree, source)
            self.cases = outline.Cases(tree, source, names) if unittest else None
            asserts = "assert" in source and any(names.seems_to_assert(each) for each in tree.body)
            missing = "" if asserts else outline.missing(tree, names)
            rewriting = Rewriting(tree, source, names, placeholders)
            code = _compile_tree(tree)
        given = {**objects, "failure": AssertionError, "exit": sys.exit}
        self.code = _with_objects(code, {placeholders[name]: given[name] for name in OBJECTS})
        self.total, self.uses_mock = rewriting.total, rewriting.uses_mock
        self.missing = missing or (outline.NONE_EXECUTED if self.total else outline.NONE_HELD)
