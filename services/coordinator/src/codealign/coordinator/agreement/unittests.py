"""Assertions written as unittest's methods."""

from __future__ import annotations

import ast

_COMPARED: dict[str, type[ast.cmpop]] = {
    "assertEqual": ast.Eq,
    "assertEquals": ast.Eq,
    "assertListEqual": ast.Eq,
    "assertTupleEqual": ast.Eq,
    "assertSetEqual": ast.Eq,
    "assertDictEqual": ast.Eq,
    "assertSequenceEqual": ast.Eq,
    "assertMultiLineEqual": ast.Eq,
    "assertNotEqual": ast.NotEq,
    "assertIs": ast.Is,
    "assertIsNot": ast.IsNot,
    "assertIn": ast.In,
    "assertNotIn": ast.NotIn,
    "assertGreater": ast.Gt,
    "assertGreaterEqual": ast.GtE,
    "assertLess": ast.Lt,
    "assertLessEqual": ast.LtE,
}


def condition(call: ast.Call) -> tuple[ast.expr, str] | None:
    """Return the condition that a call of unittest's asserts, and the exception that it must raise ("": none).

    Returns:
        None if the call is none of unittest's, with arguments that are written out.
    """
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    arguments = call.args
    if not name.startswith("assert") or any(isinstance(each, ast.Starred) for each in arguments):
        return None
    if name in _COMPARED and len(arguments) >= 2:
        return ast.Compare(arguments[0], [_COMPARED[name]()], [arguments[1]]), ""
    if name in ("assertIsNone", "assertIsNotNone") and arguments:
        op: ast.cmpop = ast.Is() if name == "assertIsNone" else ast.IsNot()
        return ast.Compare(arguments[0], [op], [ast.Constant(None)]), ""
    if name == "assertTrue" and arguments:
        return arguments[0], ""
    if name == "assertFalse" and arguments:
        return ast.UnaryOp(ast.Not(), arguments[0]), ""
    if name == "assertAlmostEqual" and len(arguments) >= 2:
        return ast.Call(ast.Name("isclose", ast.Load()), arguments[:2], call.keywords), ""
    if name == "assertRaises" and len(arguments) >= 2:
        return ast.Call(arguments[1], arguments[2:], call.keywords), _name(arguments[0])
    return call, ""


def expected_exception(node: ast.With | ast.AsyncWith) -> str:
    """Return the exception that a block must raise: `with self.assertRaises(ValueError):`. Empty: none."""
    call = node.items[0].context_expr
    if isinstance(call, ast.Call) and call.args:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in ("assertRaises", "assertRaisesRegex", "raises"):
            return _name(call.args[0])
    return ""


def _name(node: ast.expr) -> str:
    """Return the name of an exception, or "Exception" for several and for anything computed."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else "Exception"
