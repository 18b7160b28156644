"""Copies of syntax trees with some nodes replaced."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping


def rebuilt(node: ast.expr, replacement: Callable[[ast.AST], ast.expr | None]) -> ast.expr:
    """Return a copy of an expression.

    Args:
        node: The expression.
        replacement: What stands for a node in the copy, or None to copy it.

    Raises:
        RecursionError: It is nested too deeply.
    """
    made = _rebuilt(node, replacement)
    assert isinstance(made, ast.expr)
    return made


def _rebuilt(node: ast.AST, replacement: Callable[[ast.AST], ast.expr | None]) -> ast.AST:
    found = replacement(node)
    if found is not None:
        return found
    fields = {}
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            value = _rebuilt(value, replacement)
        elif isinstance(value, list):
            value = [_rebuilt(each, replacement) if isinstance(each, ast.AST) else each for each in value]
        fields[name] = value
    return ast.copy_location(type(node)(**fields), node)


def with_names(node: ast.expr, names: Mapping[str, ast.expr]) -> ast.expr:
    """Return a copy of an expression with names replaced by expressions.

    Raises:
        RecursionError: It is nested too deeply.
    """
    return rebuilt(node, lambda each: names.get(each.id) if isinstance(each, ast.Name) else None)
