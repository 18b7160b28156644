"""From what a model wrote to the program that is judged.

Two steps, simpler than EvalPlus' `sanitize` and with the same aim: lines at the end that do not parse (an answer that
was cut off, prose) are dropped, then what stands at the margin and the wanted function does not need (calls of it,
prints, tests). Nothing is repaired: what cannot be read stays as it is, and the sandbox says so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

MAX_DROPPED_LINES = 500
"""At the end of an answer; one that needs more is left as it is."""


def clean(text: str, entry_point: str) -> str:
    """The program without what does not belong to it.

    Args:
        text: What the model wrote, the prompt's beginning included where it continued one.
        entry_point: The function that is wanted; it stays with whatever it needs, and so do all imports.
    """
    lines = text.split("\n")
    tree, count = _parsed(lines)
    if tree is None:
        return text
    statements = tree.body
    needed = _needed(statements, entry_point)
    if needed is None:
        return "\n".join(lines[:count]).rstrip() + "\n"
    kept: set[int] = set()
    for statement in needed:
        kept.update(range(_first_line(statement), (statement.end_lineno or statement.lineno) + 1))
    return "\n".join(lines[number - 1] for number in sorted(kept)) + "\n"


def _parsed(lines: Sequence[str]) -> tuple[ast.Module | None, int]:
    """The longest beginning that parses, and its number of lines."""
    for count in range(len(lines), max(len(lines) - MAX_DROPPED_LINES, 0), -1):
        try:
            return ast.parse("\n".join(lines[:count])), count
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None, 0


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _needed(statements: Sequence[ast.stmt], entry_point: str) -> list[ast.stmt] | None:
    """Imports, and what binds a name that the wanted function reaches; None where nothing binds that one."""
    bound = [set(_bound(statement)) for statement in statements]
    if not any(entry_point in names for names in bound):
        return None
    reached: set[str] = set()
    fresh = {entry_point}
    while fresh:
        reached |= fresh
        users = [each for each, names in zip(statements, bound, strict=True) if names & fresh]
        fresh = {name for user in users for name in _used(user)} - reached
    return [
        statement
        for statement, names in zip(statements, bound, strict=True)
        if names & reached or any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in _shallow(statement))
    ]


def _shallow(statement: ast.stmt) -> Iterator[ast.stmt]:
    """The statement and those inside it that run with it: not the bodies of functions and classes."""
    yield statement
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return
    for field in ("body", "orelse", "finalbody"):
        for inner in getattr(statement, field, []):
            yield from _shallow(inner)
    for handler in getattr(statement, "handlers", []):
        for inner in handler.body:
            yield from _shallow(inner)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the margin binds by a definition or an assignment."""
    for inner in _shallow(statement):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield inner.name
        elif isinstance(inner, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            for target in targets:
                yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _used(statement: ast.stmt) -> Iterator[str]:
    yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
