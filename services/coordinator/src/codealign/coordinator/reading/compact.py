"""Programs of ours that are sent to the sandbox inside another program's text."""

from __future__ import annotations

import ast


def compact(source: str) -> str:
    """Return the source of a program of ours in hexadecimal, quick to compile and with its words hidden.

    Docstrings and annotations are a third of the time to compile it. The sandbox prepares the modules that a program's
    text names, and numpy only then: of our words, all that this would do is to take time in every execution.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(tree).encode().hex()


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
