"""Which functions are seeds: the static rules of the paper and its reference, in their order.

Near-duplicates among seeds are `duplicates`' work. Where the paper runs a type checker, `unresolved-name` finds the
commonest thing that one would: a name that neither the function, nor its imports, nor Python itself defines.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterable
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.text import lines
from codealign.coordinator.rules.benchmarks import BenchmarkTexts

MAX_LINES = 150
FORBIDDEN_WORDS = ("todo", "fixme", "bug")
FORBIDDEN_IMPORTS = frozenset(
    {"argparse", "os", "subprocess", "sys", "setuptools", "distutils", "matplotlib", "seaborn"}
)
RULES = (
    "seed.syntax-error",
    "seed.benchmark-text",
    "seed.no-return",
    "seed.unresolved-name",
    "seed.forbidden-word",
    "seed.forbidden-import",
    "seed.too-long",
    "seed.no-argument",
)
"""Every rule of this module, in the order of their application; the first that holds drops the seed."""


@dataclass(frozen=True)
class Drop:
    """A rule that drops something, and what it saw."""

    rule: str
    detail: str
    duplicate_of: str = ""


def static_drop(seed: pb.Seed, benchmarks: BenchmarkTexts) -> Drop | None:
    """The first rule that drops the seed, or None."""
    try:
        function = ast.parse(seed.code).body[0]
    except (SyntaxError, ValueError, IndexError, RecursionError) as error:
        return Drop("seed.syntax-error", str(error))
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return Drop("seed.syntax-error", "not a function")
    if task := benchmarks.find(seed.code):
        return Drop("seed.benchmark-text", f"holds the text of {task}")
    if not _returns_value(function):
        return Drop("seed.no-return", "no return statement with a value")
    if names := sorted(unresolved_names(seed)):
        return Drop("seed.unresolved-name", f"defined elsewhere: {', '.join(names[:5])}")
    lowered = seed.code.lower()
    if word := next((word for word in FORBIDDEN_WORDS if word in lowered), None):
        return Drop("seed.forbidden-word", f"holds {word!r}")
    if module := next((name for name in _imported(seed) if name in FORBIDDEN_IMPORTS), None):
        return Drop("seed.forbidden-import", f"imports {module}")
    length = len(lines(seed.code))
    if length > MAX_LINES:
        return Drop("seed.too-long", f"{length} lines, {MAX_LINES} at most")
    arguments = function.args
    if not (arguments.posonlyargs or arguments.args or arguments.kwonlyargs or arguments.vararg or arguments.kwarg):
        return Drop("seed.no-argument", "takes no argument")
    return None


def unresolved_names(seed: pb.Seed) -> set[str]:
    """Names that the function takes from its module and that its imports do not define."""
    table = symtable.symtable("\n".join([*seed.imports, seed.code]), "seed", "exec")
    defined = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    defined |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_namespace()}
    known = defined | set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
    return {name for name in _globals_of(table) if name not in known}


def _globals_of(table: symtable.SymbolTable) -> Iterable[str]:
    for symbol in table.get_symbols():
        outermost = table.get_type() == "module"
        if symbol.is_referenced() and (outermost or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals_of(child)


def _returns_value(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(node, ast.Return) and node.value is not None for node in _own_nodes(function))


def _own_nodes(function: ast.AST) -> Iterable[ast.AST]:
    """The function's nodes without those of functions inside it."""
    for node in ast.iter_child_nodes(function):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _own_nodes(node)


def _imported(seed: pb.Seed) -> Iterable[str]:
    tree = ast.parse("\n".join([*seed.imports, seed.code]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
