"""Detection of classes whose instances change the class itself, or one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from codealign.coordinator.evaluation import vocabulary

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_OF_THE_CLASS = ("__class__", "__dict__")
_NAMES = ("__name__", "__qualname__")


def shares_state(node: ast.ClassDef) -> bool:
    """Return whether creating or using an instance may change the state of other instances.

    True for classes that control instance creation (`__new__`, a metaclass), that access the class through an
    instance (`type(self).count += 1`), or that mutate a class attribute through one (`self.all.append(self)`).
    """
    if node.keywords or any(isinstance(each, _FUNCTION) and each.name == "__new__" for each in node.body):
        return True
    attributes = set(_class_attributes(node))
    return any(_reaches_class(each, attributes) for each in ast.walk(node))


def _class_attributes(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if not isinstance(statement, (*_FUNCTION, ast.ClassDef)):
            for each in ast.walk(statement):
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                    yield each.id


def _reaches_class(node: ast.AST, attributes: set[str]) -> bool:
    if isinstance(node, ast.Attribute):
        if node.attr in _OF_THE_CLASS and not isinstance(node.ctx, ast.Load):
            return True
        if node.attr not in _NAMES and _is_class(node.value):
            return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        reads = node.func.attr in vocabulary.READING_METHODS
        return not reads and _is_class_attribute(node.func.value, attributes)
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return _is_class_attribute(node.value, attributes)
    return False


def _is_class(node: ast.expr) -> bool:
    """Return whether the expression is `type(self)` or `self.__class__`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "type"
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


def _is_class_attribute(node: ast.expr, attributes: set[str]) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in attributes and isinstance(node.value, ast.Name)
