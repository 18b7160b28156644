"""Programs that differ from another one by one small fault, which good tests detect."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

PAIRS: list[tuple[type[ast.AST], type[ast.AST]]] = [
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.In, ast.NotIn),
    (ast.Is, ast.IsNot),
    (ast.Add, ast.Sub),
    (ast.And, ast.Or),
]
SWAPPED: dict[type[ast.AST], Any] = dict(PAIRS) | {right: left for left, right in PAIRS}


def mutate(node: ast.AST) -> bool:
    """Change one node in place; return False if there is nothing to change."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in SWAPPED:
            node.ops = [SWAPPED[type(op)](), *node.ops[1:]]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) if type(op) in SWAPPED:
            node.op = SWAPPED[type(op)]()
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            node.value = value + 1
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            node.value = ast.Constant(None)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            node.operand = ast.UnaryOp(ast.Not(), operand)
        case _:
            return False
    return True


def mutants(code: str) -> Iterator[str]:
    """Yield every program that differs from the code by one small fault."""
    tree = ast.parse(code)
    for index, _ in enumerate(ast.walk(tree)):
        mutant = copy.deepcopy(tree)
        if mutate(list(ast.walk(mutant))[index]):
            yield ast.unparse(ast.fix_missing_locations(mutant))
