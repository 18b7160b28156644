"""Static analysis of the side effects of a part of a program.

The approximation is conservative: a name that may refer to a changed object counts as changed. Only the functions
listed in `vocabulary`, and the program's own functions as far as their bodies show it, are known to change nothing.
"""

# ruff: noqa: D102 - the methods are those of ast.NodeVisitor, one per node type.
from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from codealign.coordinator.evaluation import vocabulary

ELSEWHERE = "import()"
"""Pseudo-name for state that a module's attribute, or the result of its function, may share with the module."""


@dataclass
class Effects:
    """Side effects of a part of a program; names are those of the source."""

    changed: set[str] = field(default_factory=set)
    called: list[tuple[str, set[str]]] = field(default_factory=list)
    """Calls of the program's own functions, each with the names that its arguments refer to."""
    aliases: dict[str, set[str]] = field(default_factory=dict)
    """For each name, the names that it may share state with."""
    anything: bool = False
    """Whether it may change state without a name in the program, such as a module's or the interpreter's."""
    dynamic: bool = False
    """Whether it may access any name."""
    reads_input: bool = False
    callbacks: set[str] = field(default_factory=set)
    """Names passed to a function that may call them."""


@dataclass
class Body:
    """Effects of calling a function, or a class with all its methods."""

    effects: Effects
    parameters: set[str]
    uses: set[str]
    """Module-level names that it uses."""


def dotted(node: ast.expr) -> list[str]:
    """Return the parts of `a.b.c`, or an empty list if the expression is not such a chain."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


class Reader(ast.NodeVisitor):
    """Collects the effects of the visited nodes.

    Args:
        imported: Names bound by imports, with what they refer to ("sys", "sys.exit").
        own: Names that the program binds in other ways.
        has_star: Whether there is a star import: any name may come from a module.
        inside: Whether it visits function bodies rather than module-level statements. Then nested function bodies
            count too.
        spent: Names that may refer to iterators, which change when they are iterated.
    """

    def __init__(
        self,
        imported: dict[str, str],
        own: set[str],
        has_star: bool,
        inside: bool = False,
        spent: Collection[str] = (),
    ) -> None:
        self.found = Effects()
        self._imported, self._own, self._has_star, self._inside = imported, own, has_star, inside
        self._quiet = False
        self._spent = spent
        self._roots: dict[ast.AST, set[str]] = {}

    def roots(self, node: ast.AST | None) -> set[str]:
        """Return the names that a value may share state with. The caller must not modify the set."""
        if node is None:
            return set()
        if node not in self._roots:
            self._roots[node] = self._roots_of(node)
        return self._roots[node]

    def _roots_of(self, node: ast.AST) -> set[str]:
        if isinstance(node, (ast.Constant, ast.Compare, ast.JoinedStr)):
            return set()
        if isinstance(node, ast.Name):
            return {node.id}
        if isinstance(node, ast.Call):
            parts = dotted(node.func)
            inner = {name for each in _arguments(node) for name in self.roots(each)}
            if self._is_state(parts):
                return inner | {ELSEWHERE}
            if len(parts) == 1:
                scalar = parts[0] in vocabulary.SCALARS and parts[0] not in self._own
                return set() if scalar else inner | {f"{parts[0]}()"}
            return inner | {name for name in self.roots(node.func) if name not in self._imported}
        if isinstance(node, ast.Attribute):
            outermost = node.value
            while isinstance(outermost, ast.Attribute):
                outermost = outermost.value
            return self.roots(outermost) | ({ELSEWHERE} if self._leads_to_state(dotted(node)) else set())
        if isinstance(node, (ast.Subscript, ast.Starred, ast.Await, ast.NamedExpr)):
            return self.roots(node.value)
        return {name for child in ast.iter_child_nodes(node) for name in self.roots(child)}

    def _bind(self, target: ast.AST, value: set[str]) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.found.aliases.setdefault(node.id, set()).update(value)
            elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
                self._change(self.roots(node.value))
                for root in self.roots(node.value):
                    self.found.aliases.setdefault(root, set()).update(value)

    def _change(self, names: Iterable[str]) -> None:
        for name in names:
            if name == ELSEWHERE or (name in self._imported and name not in self._own):
                self._do_anything()
            else:
                self.found.changed.add(name)

    def _do_anything(self) -> None:
        if not self._quiet:
            self.found.anything = True

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.roots(node.value)
        names = {each.id for each in node.targets if isinstance(each, ast.Name)}  # `a = b = []`: one object
        for target in node.targets:
            self._bind(target, value | (names if len(names) > 1 else set()))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, self.roots(node.value))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._bind(node.target, self.roots(node.value))
        self._change(self.roots(node.target))
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind(node.target, self.roots(node.value))
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self._change(self.roots(target))
        self.generic_visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._bind(node.target, self.roots(node.iter))
        self._iterate([node.iter])
        self.generic_visit(node)

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, self.roots(node.iter))
        self._iterate([node.iter])
        self.generic_visit(node)

    def _iterate(self, values: Iterable[ast.expr]) -> None:
        self._change(each.id for each in values if isinstance(each, ast.Name) and each.id in self._spent)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._bind(node.optional_vars, self.roots(node.context_expr))
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        for inner in ast.walk(node):
            name = getattr(inner, "name", None) if isinstance(inner, (ast.MatchAs, ast.MatchStar)) else None
            if name:
                self.found.aliases.setdefault(name, set()).update(self.roots(node.subject))
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.found.changed.update(node.names)

    def visit_Assert(self, node: ast.Assert) -> None:
        self._visit_quietly(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        parts = dotted(node.value.func) if isinstance(node.value, ast.Call) else []
        if parts == ["print"] and (file := self._file_of(node.value)) is not None:
            self._change(self.roots(file))
        elif parts and (parts == ["print"] or _is_under(self._path(parts), vocabulary.TESTING_PATHS)):
            self._visit_quietly(node)
            return
        if may_be_method(node.value):
            self.found.changed |= self.roots(node.value) & self._own
        self.generic_visit(node)

    def _file_of(self, call: ast.expr) -> ast.expr | None:
        """Return what a call of `print` writes to, unless it is a standard stream."""
        keywords = call.keywords if isinstance(call, ast.Call) else []
        file = next((each.value for each in keywords if each.arg == "file"), None)
        return None if file is None or self._path(dotted(file)) in ("sys.stdout", "sys.stderr") else file

    def _visit_quietly(self, node: ast.AST) -> None:
        before, self._quiet = self._quiet, True
        self.generic_visit(node)
        self._quiet = before

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in vocabulary.DYNAMIC and node.id not in self._own:
            self.found.dynamic = True
            if node.id != "eval":
                self._do_anything()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        # Visit the whole chain at once; checking its path covers its prefixes.
        if (parts := dotted(node)) and _is_under(self._path(parts), vocabulary.INPUT_PATHS):
            self.found.reads_input = True
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            if inner.attr in vocabulary.DYNAMIC_ATTRIBUTES:
                self.found.dynamic = True
                self._do_anything()
            inner = inner.value
        self.visit(inner)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_head(node)
        if self._inside:
            for statement in node.body:
                self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_head(node)
        # A base class or a metaclass is notified of each derived class.
        for base in (*node.bases, *(keyword.value for keyword in node.keywords)):
            self.found.changed |= {name for name in self.roots(base) if name in self._own}
            self.visit(base)
        for statement in node.body:
            self.visit(statement)

    def _visit_head(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self._call(decorator, {node.name}, [])
            self.visit(decorator)
        if not isinstance(node, ast.ClassDef):
            self.visit(node.args)

    def visit_Call(self, node: ast.Call) -> None:
        arguments = _arguments(node)
        self._iterate(arguments)
        self._call(node.func, {name for each in arguments for name in self.roots(each)}, arguments)
        self.generic_visit(node)

    def _path(self, parts: list[str]) -> str:
        """Return the dotted path that a chain refers to if its first name is imported, else an empty string."""
        if parts and parts[0] in self._imported and parts[0] not in self._own:
            return ".".join([self._imported[parts[0]], *parts[1:]])
        return ""

    def _call(self, function: ast.expr, given: set[str], arguments: list[ast.expr]) -> None:
        parts = dotted(function)
        if path := self._path(parts):
            self._call_imported(path, given, arguments)
        elif len(parts) == 1:
            self._call_named(parts[0], given, arguments)
        elif isinstance(function, ast.Attribute):
            self._call_method(function, given)
        else:
            self._change(self.roots(function) | given)

    def _is_state(self, parts: list[str]) -> bool:
        """Return whether a chain gives access to a module's mutable state."""
        return (path := self._path(parts)) != "" and not _only_reads(path)

    def _leads_to_state(self, parts: list[str]) -> bool:
        """Return whether a chain, or a prefix of it, gives access to a module's mutable state."""
        # If the shortest path is read-only, so are the longer ones.
        return len(parts) > 1 and self._is_state(parts[:2])

    def _call_imported(self, path: str, given: set[str], arguments: list[ast.expr]) -> None:
        if _is_under(path, vocabulary.INPUT_PATHS):
            self.found.reads_input = True
        if path.partition(".")[0] in vocabulary.CALLING_MODULES:
            self._change(given)
        elif _only_reads(path) and not path.endswith(".register"):
            self._call_arguments(arguments)
        else:
            self._do_anything()
            self._change(given)

    def _call_arguments(self, arguments: list[ast.expr]) -> None:
        """Record the effects of a function that may call its arguments."""
        for each in arguments:
            if isinstance(each, ast.Attribute) and each.attr in vocabulary.FILLING_METHODS:
                self._change(self.roots(each))
            elif isinstance(each, ast.Name) and each.id in self._own:
                self.found.callbacks.add(each.id)

    def _call_named(self, name: str, given: set[str], arguments: list[ast.expr]) -> None:
        if name in self._own or (self._inside and not hasattr(builtins, name)):
            self.found.called.append((name, given))
        elif name in ("input", "open"):
            self._open_or_input(name, arguments)
        elif name in vocabulary.CHANGING:
            self._change(self.roots(arguments[0]) if arguments else ())
        elif name in vocabulary.CALLING:
            for each in arguments:
                if isinstance(each, ast.Attribute) and each.attr not in vocabulary.READING_METHODS:
                    self._change(self.roots(each))
                elif isinstance(each, ast.Name):
                    self._call(each, set(), [])
        elif not hasattr(builtins, name) and self._has_star:
            self._do_anything()

    def _open_or_input(self, name: str, arguments: list[ast.expr]) -> None:
        modes = [each.value for each in arguments[1:] if isinstance(each, ast.Constant)]
        if name == "open" and any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes):
            self._do_anything()
        else:
            self.found.reads_input = True

    def _call_method(self, function: ast.Attribute, given: set[str]) -> None:
        if function.attr in vocabulary.READING_METHODS:
            return
        owners = self.roots(function.value)
        self._change(owners)
        if function.attr in vocabulary.FILLING_METHODS:
            for owner in owners:
                self.found.aliases.setdefault(owner, set()).update(given)
        else:
            self._change(given)


def iterators(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement may bind to an iterator: a generator, or what a call returns."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and isinstance(
            node.value, ast.GeneratorExp | ast.Call
        ):
            made = dotted(node.value.func) if isinstance(node.value, ast.Call) else []
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if made not in vocabulary.CONTAINERS:
                yield from (each.id for each in targets if isinstance(each, ast.Name))


def may_be_method(value: ast.expr) -> bool:
    """Return whether an expression may run a method: a subscript (`__missing__`) or an operator often overloaded."""
    operators = (ast.LShift, ast.RShift, ast.BitOr)
    return isinstance(value, ast.Subscript) or (isinstance(value, ast.BinOp) and isinstance(value.op, operators))


def _arguments(node: ast.Call) -> list[ast.expr]:
    return [*node.args, *(keyword.value for keyword in node.keywords)]


def _only_reads(path: str) -> bool:
    return path.partition(".")[0] in vocabulary.READING_MODULES or _is_under(path, vocabulary.READING_PATHS)


def _is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)
