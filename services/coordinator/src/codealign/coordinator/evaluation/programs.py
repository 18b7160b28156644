"""Extraction of the program to judge from a model's text.

Takes the part that parses (see `readable`), and keeps these module-level statements:

- those that bind a name that the wanted function uses, directly or through other names;
- those that may change such a name or its value: loops that fill tables, method calls, attribute assignments,
  decorators and base classes that register (see `effects`);
- those that may change the state of a module or of the interpreter (`random.seed(7)`, `sys.setrecursionlimit(...)`);
- imports, except unused ones of modules outside the standard library.

If names may be accessed dynamically (`globals()`, `exec`), all bindings are kept. This removes the main guard, prints,
assertions, calls that change nothing the function depends on, expressions without effect, annotations without a value
(prose such as "Output: 4"), module-level code that cannot run there, code that reads input only for its own use, and
unused definitions. A print or an assertion is removed even if it draws random numbers.

Statements that share a line are kept or removed together. Text that cannot be parsed is returned unchanged; the sandbox
then reports the error.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.common.foreign_python import without_warnings
from codealign.coordinator.evaluation.classes import shares_state
from codealign.coordinator.evaluation.effects import Body, Effects, Reader, dotted, iterators, may_be_method
from codealign.coordinator.evaluation.reach import Reach
from codealign.coordinator.evaluation.readable import Reader as TextReader
from codealign.coordinator.evaluation.readable import parse

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Definition = (*_Function, ast.ClassDef)
_Import = (ast.Import, ast.ImportFrom)
_COMPREHENSIONS = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})
_CACHES = frozenset({"functools.lru_cache", "functools.cache"})
_SPECIAL = frozenset({"__doc__", "__annotations__"})


def clean(text: str, entry_point: str) -> str:
    """Return the program without irrelevant statements, or the text itself if it cannot be parsed.

    Args:
        text: Text of the model, including the prompt if the model continued it.
        entry_point: Name of the wanted function.
    """
    try:
        lines = TextReader(lambda tree: _binds(tree, entry_point)).program(text)
        if not lines:
            return text
        program = "".join(lines)
        units = _units(parse(program).body, lines)
        if not any(entry_point in unit.binds for unit in units):
            return _as_ended(text, program)
        dropped = {number for unit in _not_needed(units, entry_point) for number in range(unit.first, unit.last + 1)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    return _as_ended(text, "".join(line for number, line in enumerate(lines, 1) if number not in dropped))


def _as_ended(text: str, program: str) -> str:
    """End a program that is not the whole text with exactly one line ending."""
    if program == text:
        return text
    end = "\r\n" if "\r\n" in program else "\n"
    return program.rstrip() + end


@dataclass
class _Unit:
    """Module-level statements that share lines."""

    statements: list[ast.stmt]
    first: int
    last: int
    binds: set[str]
    uses: set[str]
    compiles: bool = True

    @property
    def is_guard(self) -> bool:
        """Whether it runs only if the program is the main module."""
        return all(
            isinstance(each, ast.If) and not each.orelse and _asks_for_main(each.test) for each in self.statements
        )


def _asks_for_main(test: ast.expr) -> bool:
    """Return whether a test is `__name__ == "__main__"` in either order, or a conjunction that contains it."""
    if isinstance(test, ast.BoolOp):
        return isinstance(test.op, ast.And) and any(map(_asks_for_main, test.values))
    if not isinstance(test, ast.Compare) or not all(isinstance(each, (ast.Eq, ast.In)) for each in test.ops):
        return False
    return any(isinstance(each, ast.Name) and each.id == "__name__" for each in (test.left, *test.comparators))


def _binds(tree: ast.Module, name: str) -> bool:
    return any(getattr(node, "name", None) == name for node in tree.body if isinstance(node, _Definition)) or any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store) for node in ast.walk(tree)
    )


def _units(statements: Sequence[ast.stmt], lines: Sequence[str]) -> list[_Unit]:
    units: list[_Unit] = []
    for statement in statements:
        decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        last = statement.end_lineno or statement.lineno
        if units and first <= units[-1].last:
            units[-1].statements.append(statement)
            units[-1].last = max(last, units[-1].last)
        else:
            units.append(_Unit([statement], first, last, set(), set()))
    for number, unit in enumerate(units):
        _find_names(unit, "".join(lines[unit.first - 1 : unit.last]))
        unit.binds.update(_special_names(unit.statements, is_first=not number))
    return units


def _special_names(statements: Sequence[ast.stmt], *, is_first: bool) -> Iterator[str]:
    """Yield the special module names that statements bind implicitly."""
    first = statements[0]
    if is_first and isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
        yield "__doc__"
    if any(isinstance(each, ast.AnnAssign) for each in statements):
        yield "__annotations__"


def _find_names(unit: _Unit, source: str) -> None:
    try:
        with without_warnings():
            top = symtable.symtable(source.removeprefix("\ufeff"), "program", "exec")
            if not all(isinstance(each, _Definition) for each in unit.statements):
                compile(source.removeprefix("\ufeff"), "program", "exec", dont_inherit=True)
    except SyntaxError:
        unit.compiles = False
        return
    for symbol in top.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            unit.binds.add(symbol.get_name())
        if symbol.is_referenced():
            unit.uses.add(symbol.get_name())
    for child in top.get_children():
        unit.uses |= _globals_of(child)
        if child.get_name() in _COMPREHENSIONS:  # `[last for x in xs if (last := x)]` binds in the module
            unit.binds |= {symbol.get_name() for symbol in child.get_symbols() if _binds_outside(symbol)}


def _binds_outside(symbol: symtable.Symbol) -> bool:
    return symbol.is_global() and symbol.is_assigned()


def _globals_of(table: symtable.SymbolTable) -> set[str]:
    found: set[str] = set()
    pending = [table]
    while pending:
        each = pending.pop()
        found |= {symbol.get_name() for symbol in each.get_symbols() if symbol.is_global()}
        pending += each.get_children()
    return found


class _Program:
    """Combined effects of the statements."""

    def __init__(self, units: Sequence[_Unit]) -> None:
        self.imported, self.has_star = _imports(units)
        self.bound = {name for unit in units for name in unit.binds}
        imports_only = {name for unit in units if _is_import(unit) for name in unit.binds}
        self.own = {name for unit in units if not _is_import(unit) for name in unit.binds} - imports_only
        statements = [statement for unit in units for statement in unit.statements]
        self._iterators = {name for statement in statements for name in iterators(statement)}
        self._cached = set(_cached(statements, self.imported))
        bodies: dict[str, Body] = {}
        aliases: dict[str, set[str]] = {}
        self._effects: list[Effects] = []
        for unit in units:
            effects = self._read(unit.statements, inside=False)
            effects.changed |= self._cached & {name for each in unit.statements for name in _called_in_a_loop(each)}
            self._effects.append(effects)
            for name, others in effects.aliases.items():
                aliases.setdefault(name, set()).update(others)
            for statement in unit.statements:
                if isinstance(statement, _Definition):
                    self._add_body(bodies, statement, unit.uses)
        self._bodies, self._reach = bodies, Reach(bodies, aliases, self.own)

    def _read(self, nodes: Sequence[ast.AST], inside: bool) -> Effects:
        reader = Reader(self.imported, self.own, self.has_star, inside, self._iterators)
        for node in nodes:
            reader.visit(node)
        return reader.found

    def _add_body(self, bodies: dict[str, Body], statement: ast.stmt, uses: set[str]) -> None:
        assert isinstance(statement, _Definition)
        parameters = {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
        effects = self._read(statement.body, inside=True)
        if isinstance(statement, ast.ClassDef) and shares_state(statement):
            effects.changed.add(statement.name)
            uses = uses | {statement.name}
        before = bodies.get(statement.name)
        if before is not None:  # redefined: any of the definitions may be called
            effects.changed |= before.effects.changed
            effects.called += before.effects.called
            parameters, uses = parameters | before.parameters, uses | before.uses
        bodies[statement.name] = Body(effects, parameters, uses)

    def effects(self, number: int) -> Effects:
        """Return the effects of the unit with this number, including those of its calls."""
        return self._reach.of(self._effects[number])

    def calls(self, number: int, name: str) -> bool:
        """Return whether the unit itself calls this function."""
        return any(each == name for each, _ in self._effects[number].called)

    def is_dynamic(self, number: int, unit: _Unit) -> bool:
        """Return whether the unit, or a function in it, may access any name."""
        bodies = [self._bodies[each.name] for each in unit.statements if isinstance(each, _Definition)]
        return self._effects[number].dynamic or any(body.effects.dynamic for body in bodies)


def _cached(statements: Sequence[ast.stmt], imported: dict[str, str]) -> Iterator[str]:
    """Yield the functions whose results are cached: earlier calls spare later ones the depth of their recursion."""
    for statement in statements:
        if not isinstance(statement, _Function):
            continue
        for decorator in statement.decorator_list:
            first, *rest = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator) or [""]
            if ".".join([imported.get(first, first), *rest]) in _CACHES:
                yield statement.name


def _called_in_a_loop(statement: ast.stmt) -> Iterator[str]:
    """Yield the functions that a loop calls, if it does nothing else."""
    if not isinstance(statement, ast.For):
        return
    calls = [each.value for each in statement.body if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call)]
    if len(calls) == len(statement.body):
        yield from (call.func.id for call in calls if isinstance(call.func, ast.Name))


def _is_import(unit: _Unit) -> bool:
    return all(isinstance(each, _Import) for each in unit.statements)


def _inner_imports(unit: _Unit) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when the unit runs."""
    pending: list[ast.AST] = list(unit.statements)
    while pending:
        node = pending.pop()
        if isinstance(node, _Import):
            yield node
        elif not isinstance(node, _Definition):
            pending += [each for each in ast.iter_child_nodes(node) if isinstance(each, (ast.stmt, ast.excepthandler))]


def _imports(units: Sequence[_Unit]) -> tuple[dict[str, str], bool]:
    """Return the names bound by imports, with what they refer to, and whether there is a star import."""
    found: dict[str, str] = {}
    has_star = False
    for unit in units:
        for node in _inner_imports(unit):
            for each in node.names:
                has_star |= each.name == "*"
                if isinstance(node, ast.ImportFrom):
                    found[each.asname or each.name] = f"{node.module or ''}.{each.name}"
                elif each.asname:
                    found[each.asname] = each.name
                else:
                    found[each.name.partition(".")[0]] = each.name.partition(".")[0]
    return found, has_star


def _not_needed(units: Sequence[_Unit], entry_point: str) -> list[_Unit]:
    program = _Program(units)
    effects = [program.effects(number) for number in range(len(units))]
    reached, perhaps = {entry_point}, set[str]()
    kept: set[int] = set()
    growing = True
    while growing:
        growing = False
        for number, unit in enumerate(units):
            needed = _is_needed(unit, effects[number], reached)
            # Evaluated text may use any bound name, but not variables that hold demo calls of the entry point.
            is_demonstration = effects[number].reads_input or program.calls(number, entry_point)
            if number in kept or not (needed or (unit.binds & perhaps and not is_demonstration)):
                continue
            kept.add(number)
            growing = True
            reached |= {name for name in unit.uses if name in program.bound or not hasattr(builtins, name)}
            if program.is_dynamic(number, unit):
                perhaps |= program.bound
    return [unit for number, unit in enumerate(units) if number not in kept]


def _is_needed(unit: _Unit, effects: Effects, reached: set[str]) -> bool:
    if not unit.compiles:
        return bool(_defined(unit) & reached)
    if unit.is_guard:
        return False
    if not unit.binds.isdisjoint(_SPECIAL & reached):
        return True
    if all(map(_has_no_effect, unit.statements)):
        return False
    if unit.binds & reached or effects.changed & reached:
        return True
    if any(isinstance(each, ast.Expr) and _ends_program(each.value) for each in unit.statements):
        return False
    imports = list(_inner_imports(unit))
    if imports and (not _is_import(unit) or any(map(_is_kept_import, imports))):
        return True
    return effects.anything and not effects.reads_input


def _defined(unit: _Unit) -> set[str]:
    return {each.name for each in unit.statements if isinstance(each, _Definition)}


def _is_kept_import(node: ast.Import | ast.ImportFrom) -> bool:
    """Return whether an unused import is kept. Others are not: a missing module would end the program."""
    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
    standard = all(module.partition(".")[0] in sys.stdlib_module_names for module in modules)
    return standard or any(each.name == "*" for each in node.names)


def _has_no_effect(statement: ast.stmt) -> bool:
    """Return whether a statement does nothing, or only ends the program."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None and isinstance(statement.target, ast.Name)
    if isinstance(statement, ast.Expr):
        return _is_inert(statement.value) or _ends_program(statement.value)
    return isinstance(statement, (ast.Pass, ast.Raise, ast.Global))


def _is_inert(value: ast.expr) -> bool:
    """Return whether an expression calls and binds nothing, and runs no method (see `Reader.visit_Expr`)."""
    if may_be_method(value):
        return False
    acting = (ast.Call, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
    return not any(isinstance(node, acting) for node in ast.walk(value))


def _ends_program(value: ast.expr) -> bool:
    parts = dotted(value.func) if isinstance(value, ast.Call) else []
    return parts in (["exit"], ["quit"], ["sys", "exit"], ["os", "_exit"])
