"""Compiles a program so that the assertions in its tests report when they run.

Imports as little as possible, from the standard library only: every module imported here is in the memory that each
execution copies. An assertion of the tests, `assert condition, message`, becomes

    if condition:
        <assertion>(True)
    else:
        <assertion>(False)
        assert False, message

so that it counts where it runs, even if a handler swallows the AssertionError. A call of a unittest assertion,
`self.assertEqual(a, b)`, becomes `<checked>(self.assertEqual, a, b)`, which calls it and reports the outcome. For an
assertion in a `with` statement, a surrounding try statement reports it. Where one branch of a condition only fails
(`raise AssertionError`), the other branches begin with `<assertion>(True)`. Assertions in the code are not rewritten:
a precondition that the tests trigger and catch is not a failure, and one that nothing catches ends the program.

Names in angle brackets are constants of the code object, so a program cannot rebind them. Each call of a witness
carries a mark in its source position. `sites` finds the instructions with this mark; calls from any other instruction
do not count. `assertions` defines what an assertion is, and `rewriting` inserts the witnesses.
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
    """Compile a tree of any depth that `compile` accepts as text. As objects it needs twice the recursion depth."""
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
    """Yield the code object and all code objects inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested(constant)


def sites(code: types.CodeType) -> Iterator[tuple[types.CodeType, int]]:
    """Yield every instruction of the tests that calls a witness: its code object and its offset in bytes."""
    for each in nested(code):
        instructions = each.co_code
        for index, (_, _, _, column) in enumerate(each.co_positions()):
            # The instruction that unpacks the call's arguments has the same position.
            if column == MARK and instructions[2 * index] in _CALLS:
                yield each, 2 * index


def compile_code(source: str, path: str = sources.PATH) -> types.CodeType:
    """Compile the code part without changes.

    Args:
        source: The code.
        path: Path of its file.

    Raises:
        SyntaxError: The source is invalid. `compile` also raises ValueError for a null byte, and RecursionError or
            MemoryError for deep nesting.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, path, "exec", dont_inherit=True)


class CompiledTests:
    """The tests, compiled and ready to run.

    Args:
        source: The tests.
        unique: A text that does not occur in them.
        objects: The witnesses, by their names in `rewriting.WITNESSES`.
        unittest: Whether the tests may use unittest.

    Attributes:
        code: Their code object.
        total: Number of assertions in them.
        missing: The explanation to give if no assertion is executed.
        cases: The test cases that they define, or None if they do not use unittest.
        uses_mock: Whether they contain an assertion of a mock.

    Raises:
        SyntaxError: As for `compile_code`.
    """

    def __init__(self, source: str, unique: str, objects: Mapping[str, object], *, unittest: bool) -> None:
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
