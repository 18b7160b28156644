"""Static rules for seed functions, following the paper and its reference implementation, in their order.

Near duplicates among seeds are handled in `duplicates`. Where the paper runs a type checker, `unresolved-name` finds
the most common error: a name that neither the function, nor its imports, nor Python itself defines.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import symtable
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.foreign_python import without_warnings
from codealign.common.text import lines
from codealign.coordinator.reading.python_code import parsed
from codealign.coordinator.rules.benchmarks import BenchmarkTexts

MAX_LINES = 150
FORBIDDEN_WORDS = ("todo", "fixme", "bug")
FORBIDDEN_IMPORTS = frozenset(
    {"argparse", "os", "subprocess", "sys", "setuptools", "distutils", "matplotlib", "seaborn"}
)
_STAR_MODULES = (
    "abc array ast base64 bisect calendar cmath collections collections.abc contextlib copy csv dataclasses datetime "
    "decimal difflib enum fractions functools hashlib heapq html io itertools json math numbers operator queue random "
    "re secrets statistics string struct textwrap time types typing unicodedata uuid zlib"
)
STAR_MODULES = frozenset(_STAR_MODULES.split())
"""Standard library modules that can be imported here to determine what `from module import *` binds."""
RULES: Mapping[str, str] = {
    "seed.syntax-error": "not a function that compiles",
    "seed.benchmark-text": "contains a benchmark's text",
    "seed.no-return": "returns no value",
    "seed.unresolved-name": "needs a name that is defined elsewhere",
    "seed.forbidden-word": "marked as unfinished (todo, fixme, bug)",
    "seed.forbidden-import": "imports a module for files, processes or plots",
    "seed.too-long": "too many lines",
    "seed.no-argument": "takes no argument",
}
"""All rules of this module and their meanings, in the order of application; the first match drops the seed."""


@dataclass(frozen=True)
class Drop:
    """A rule that drops something, and what it found."""

    rule: str
    detail: str
    duplicate_of: str = ""


def static_drop(seed: pb.Seed, benchmarks: BenchmarkTexts) -> Drop | None:
    """Return the first rule that drops the seed, or None."""
    if error := _compile_error(seed):
        return Drop("seed.syntax-error", error)
    body = _tree(seed.code).body
    if len(body) > 1:
        return Drop("seed.syntax-error", f"{len(body)} statements of a file, not one function")
    function = body[0] if body else None
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return Drop("seed.syntax-error", "not a function")
    if task := benchmarks.find(seed.code):
        return Drop("seed.benchmark-text", f"contains the text of {task}")
    if not _returns_value(function):
        return Drop("seed.no-return", "no return statement with a value")
    if names := sorted(unresolved_names(seed)):
        return Drop("seed.unresolved-name", f"defined elsewhere: {', '.join(names[:5])}")
    lowered = seed.code.lower()
    if word := next((word for word in FORBIDDEN_WORDS if word in lowered), None):
        return Drop("seed.forbidden-word", f"contains {word!r}")
    if module := next((name for name in _imported(seed) if name in FORBIDDEN_IMPORTS), None):
        return Drop("seed.forbidden-import", f"imports {module}")
    length = len(lines(seed.code))
    if length > MAX_LINES:
        return Drop("seed.too-long", f"{length} lines, {MAX_LINES} at most")
    arguments = function.args
    if not (arguments.posonlyargs or arguments.args or arguments.kwonlyargs or arguments.vararg or arguments.kwarg):
        return Drop("seed.no-argument", "takes no argument")
    return None


def _compile_error(seed: pb.Seed) -> str:
    """Return why Python does not compile the function, alone and with its imports, or "" if it does."""
    with without_warnings():
        try:
            for text in (seed.code, _whole(seed)):
                compile(text, "seed", "exec", dont_inherit=True)
                symtable.symtable(text, "seed", "exec")
        except (RecursionError, MemoryError):
            return "nested too deeply for Python's compiler"
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes, lone surrogates
            return str(error)
    return ""


def _whole(seed: pb.Seed) -> str:
    return "\n".join([*seed.imports, seed.code])


def _tree(text: str) -> ast.Module:
    """Return the syntax tree of code that compiles."""
    return parsed(text) or ast.Module(body=[], type_ignores=[])


def unresolved_names(seed: pb.Seed) -> set[str]:
    """Return names that the function uses from its module and that its imports do not define.

    A star import defines names only if its module is one of STAR_MODULES. Names from other modules cannot be told from
    those of the seed's own module, so they stay unresolved.
    """
    with without_warnings():
        table = symtable.symtable(_whole(seed), "seed", "exec")
    defined = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    defined |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_namespace()}
    known = defined | set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
    known = known.union(*map(_exported, _star_imports(seed) & STAR_MODULES))
    return {name for name in _globals_of(table) if name not in known}


def _star_imports(seed: pb.Seed) -> set[str]:
    """Return the modules that the seed imports `*` from; a relative one begins with its dots."""
    return {
        "." * node.level + (node.module or "")
        for node in ast.walk(_tree(_whole(seed)))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    }


@cache
def _exported(module: str) -> frozenset[str]:
    """Return the names that `from module import *` binds, for a module in STAR_MODULES."""
    found = importlib.import_module(module)
    return frozenset(getattr(found, "__all__", None) or (name for name in dir(found) if not name.startswith("_")))


def _globals_of(table: symtable.SymbolTable) -> Iterable[str]:
    waiting = [table]
    while waiting:
        inner = waiting.pop()
        waiting += inner.get_children()
        outermost = inner.get_type() == "module"
        for symbol in inner.get_symbols():
            if symbol.is_referenced() and (outermost or symbol.is_global()):
                yield symbol.get_name()


def _returns_value(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(node, ast.Return) and node.value is not None for node in _own_nodes(function))


def _own_nodes(function: ast.AST) -> Iterable[ast.AST]:
    """Yield the function's nodes, without those of nested functions."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _imported(seed: pb.Seed) -> Iterable[str]:
    tree = _tree(_whole(seed))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
