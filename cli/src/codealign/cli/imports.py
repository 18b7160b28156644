"""Find the import statements of a module that a function needs.

`symtable`, the compiler's scope analysis, finds the function's free names in its source alone, so that locals,
parameters and comprehension variables are recognized exactly as Python does. Each free name is then looked up among the
module's imports.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from codealign.common.foreign_python import without_warnings

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

FUTURE_ANNOTATIONS = "from __future__ import annotations"


@dataclass(frozen=True)
class Binding:
    """A name that an import statement of the module binds."""

    name: str
    statement: ast.Import | ast.ImportFrom
    alias: ast.alias
    conditional: bool
    """Whether the import is inside an `if`, `try`, ..., where another branch may bind the name differently."""

    @property
    def dotted(self) -> str:
        """The dotted name "a.b" for `import a.b`, which binds `a`; otherwise the bound name."""
        return self.alias.name if isinstance(self.statement, ast.Import) and not self.alias.asname else self.name

    @property
    def place(self) -> tuple[int, int]:
        """Position in the file, for sorting."""
        return self.alias.lineno, self.alias.col_offset


@dataclass
class ModuleImports:
    """A module's top-level imports, and the names that it defines itself."""

    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    stars: list[ast.ImportFrom] = field(default_factory=list)
    defined: dict[str, int] = field(default_factory=dict)
    """Names bound by other top-level statements, with the line of the last unconditional one (0: none)."""
    future_annotations: bool = False

    @classmethod
    def of(cls, module: ast.Module) -> ModuleImports:
        """Read the imports of a module."""
        imports = cls()
        for statement, conditional in module_level(module.body):
            imports._add(statement, conditional)
        return imports

    def _add(self, statement: ast.stmt, conditional: bool) -> None:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            self.future_annotations |= any(alias.name == "annotations" for alias in statement.names)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                if alias.name == "*" and isinstance(statement, ast.ImportFrom):
                    self.stars.append(statement)
                    continue
                name = alias.asname or (alias.name.split(".")[0] if isinstance(statement, ast.Import) else alias.name)
                self.bindings.setdefault(name, []).append(Binding(name, statement, alias, conditional))
        else:
            for name in _bound_names(statement):
                line = 0 if conditional else statement.lineno
                self.defined[name] = max(self.defined.get(name, 0), line)

    def needed_by(self, function: FunctionNode, source: str) -> list[str]:
        """Return the import statements, reduced to the names that the function uses, in the module's order.

        Args:
            function: The function's node.
            source: The function's dedented source.

        Raises:
            SyntaxError: The function parses but does not compile.
        """
        names = outside_names(function, source)
        chains = _attribute_chains(function)
        chosen: list[Binding] = []
        unresolved = False
        for name in names:
            found = self._resolve(name, chains)
            chosen += found
            unresolved |= not found and name not in self.defined and name not in _BUILTINS
        statements = [FUTURE_ANNOTATIONS] if self.future_annotations and any(_annotations(function)) else []
        # A name that nothing else defines must come from a star import, if there is one.
        stars = self.stars if unresolved else []
        return statements + _write(chosen, stars)

    def _resolve(self, name: str, chains: set[str]) -> list[Binding]:
        candidates = self.bindings.get(name, [])
        plain = [binding for binding in candidates if not binding.conditional]
        chosen = plain[-1] if plain else next(iter(candidates), None)
        if chosen is None or self.defined.get(name, 0) > chosen.place[0]:
            return []
        if chosen.dotted == chosen.name and len(candidates) == 1:
            return [chosen]
        # `import a.b` and `import a.c` both bind `a`: take those whose submodules the function accesses.
        family = [b for b in candidates if isinstance(b.statement, ast.Import) and not b.alias.asname]
        if chosen not in family:
            return [chosen]
        through = [b for b in family if any(chain == b.dotted or chain.startswith(b.dotted + ".") for chain in chains)]
        deepest = [b for b in through if not any(o.dotted.startswith(b.dotted + ".") for o in through)]
        unique = {b.dotted: b for b in deepest}
        return list(unique.values()) or [min(family, key=lambda b: (len(b.dotted), b.place))]


_BUILTINS = frozenset(dir(builtins)) | {
    "__name__",
    "__file__",
    "__doc__",
    "__builtins__",
    "__spec__",
    "__loader__",
    "__package__",
    "__path__",
}


def module_level(body: Iterable[ast.stmt], conditional: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield every statement that runs in the module's scope, including those inside `if`, `try`, `with` and loops.

    Yields:
        The statement, and whether it is inside another one.
    """
    waiting = [
        (statement, conditional) for statement in reversed(list(body))
    ]  # no recursion: an `elif` chain may be long
    while waiting:
        statement, inside = waiting.pop()
        yield statement, inside
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        inner: list[ast.stmt] = []
        for block in ("body", "handlers", "orelse", "finalbody", "cases"):
            for item in getattr(statement, block, ()):
                inner += item.body if isinstance(item, ast.ExceptHandler | ast.match_case) else [item]
        waiting += [(one, True) for one in reversed(inner)]


def outside_names(function: FunctionNode, source: str) -> list[str]:
    """Return a function's free names, sorted: those of body, decorators, defaults and annotations.

    Raises:
        SyntaxError: The source does not compile.
    """
    with without_warnings():
        table = symtable.symtable(source, "<seed>", "exec")
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    waiting = list(table.get_children())
    while waiting:
        inner = waiting.pop()
        waiting += inner.get_children()
        names |= {symbol.get_name() for symbol in inner.get_symbols() if symbol.is_global()}
    names |= {
        node.id
        for annotation in _annotations(function)
        for text in _quoted(annotation)
        for node in ast.walk(text)
        if isinstance(node, ast.Name)
    }
    return sorted(names - {function.name})


def _annotations(function: FunctionNode) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns


def _quoted(annotation: ast.expr) -> Iterator[ast.expr]:
    """Yield the expressions that an annotation contains as strings, except in `Literal["..."]`."""
    waiting: list[ast.AST] = [annotation]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] == "Literal":
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                with without_warnings():
                    found = ast.parse(node.value, mode="eval").body
            except (SyntaxError, ValueError):
                continue
            yield found
        waiting += ast.iter_child_nodes(node)


def _attribute_chains(function: FunctionNode) -> set[str]:
    chains = set()
    for node in ast.walk(function):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            chains.add(".".join([inner.id, *reversed(parts)]))
    return chains


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a non-import statement binds in its own scope."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    targets: list[ast.AST] = []
    if isinstance(statement, ast.Assign):
        targets += statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        targets.append(statement.target)
    elif isinstance(statement, ast.With | ast.AsyncWith):
        targets += [item.optional_vars for item in statement.items if item.optional_vars is not None]
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _write(bindings: list[Binding], stars: list[ast.ImportFrom]) -> list[str]:
    """Return one statement for each of the module's, reduced to the needed names."""
    texts: dict[tuple[int, int], str] = {}
    for binding in sorted(bindings, key=lambda binding: binding.place):
        alias, statement = binding.alias, binding.statement
        renamed = f"{alias.name} as {alias.asname}" if alias.asname not in (None, alias.name) else alias.name
        if isinstance(statement, ast.Import):
            texts[binding.place] = f"import {renamed}"
            continue
        place = (statement.lineno, statement.col_offset)
        head = f"from {'.' * statement.level}{statement.module or ''} import "
        texts[place] = f"{texts[place]}, {renamed}" if place in texts else head + renamed
    for star in stars:
        texts[star.lineno, star.col_offset] = f"from {'.' * star.level}{star.module or ''} import *"
    ordered = [text for _, text in sorted(texts.items())]
    return list(dict.fromkeys(ordered))
