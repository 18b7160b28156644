"""Whether what an answer returns may be another value in another process.

The sandbox fixes the seed of hashes, so the order of a set of texts is always the same there, and looks like a
property of the answer. Elsewhere it is another one. The same holds for the clock, addresses and the environment. An
added assertion must hold in every process, so there is none where this is in doubt. Code was written by a model: it is
parsed, never executed, and whatever is not known to be steady is not.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection
from enum import IntEnum

from codealign.coordinator.agreement.calls import MAX_CHARS, Arguments
from codealign.coordinator.reading.python_code import BOM, parsed

_MODULES = frozenset(
    {
        "asyncio", "concurrent", "gc", "getpass", "glob", "inspect", "locale", "multiprocessing", "os", "pathlib",
        "platform", "random", "secrets", "shutil", "socket", "subprocess", "tempfile", "threading", "time",
        "tracemalloc", "uuid", "weakref",
    }
)  # fmt: skip
"""Modules that show a program its surroundings."""
_FUNCTIONS = frozenset({"hash", "id", "open"})
_METHODS = frozenset(
    {"__hash__", "argv", "astimezone", "default_rng", "fromtimestamp", "getsizeof", "now", "random", "timestamp"}
    | {"today", "utcnow"}
)
_WITHOUT_ORDER = frozenset(
    {"all", "any", "bool", "frozenset", "isinstance", "len", "max", "min", "set", "sorted", "sum"}
)
"""Functions of a set whose results do not depend on its order, unless they have a key."""
_ASKING = frozenset(
    {"add", "clear", "difference_update", "discard", "intersection_update", "isdisjoint", "issubset", "issuperset"}
    | {"remove", "symmetric_difference_update", "update"}
)
"""Methods of a set, or with one as argument, whose results are no sets and do not depend on its order."""
_MAKING = frozenset({"copy", "difference", "intersection", "symmetric_difference", "union"})
"""Methods whose results are sets."""
_OPERATORS = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)
_VIEWS = frozenset({"items", "keys"})


class Steadiness(IntEnum):
    """What may differ from process to process."""

    STEADY = 0
    """Nothing is known that may."""
    SETS = 1
    """Functions return sets, which are equal in any order."""
    VARIES = 2
    """A result."""


def of_code(code: str, view: str = "") -> Steadiness:
    """Return what may differ in the results of an answer.

    Args:
        code: The answer's code.
        view: What is looked at of a result; see `Subject`.
    """
    text = f"{code.removeprefix(BOM)}\n{view}"
    tree = parsed(text) if len(text) <= MAX_CHARS else None
    if tree is None or any(map(_shows_surroundings, ast.walk(tree))):
        return Steadiness.VARIES
    return _Sets(tree).found()


def has_sets(arguments: Arguments) -> bool:
    """Return whether there is a set in arguments whose order may differ: one of anything but numbers."""
    for text in (*arguments.positional, *(text for _, text in arguments.keywords)):
        for node in ast.walk(ast.parse(text, mode="eval")) if "{" in text else ():
            if isinstance(node, ast.Set) and not all(map(_is_number, node.elts)):
                return True
    return False


def _is_number(node: ast.expr) -> bool:
    node = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _shows_surroundings(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(each.name.partition(".")[0] in _MODULES for each in names)
        case ast.ImportFrom(module=module, names=names):
            return (module or "").partition(".")[0] in _MODULES or any(each.name in _METHODS for each in names)
        case ast.Name(id=name):
            return name in _FUNCTIONS or name == "__import__"
        case ast.Attribute(attr=name):
            return name in _METHODS
    return False


class _Sets:
    """Follows the sets of a program to where their order might show."""

    def __init__(self, tree: ast.Module) -> None:
        self._parents: dict[ast.AST, tuple[ast.AST, str]] = {}
        """The parent of each node, and the field that it is in. Annotations are left out."""
        self._uses = defaultdict[str, list[ast.expr]](list)
        """Where each name, or attribute of this name, is read, until it is followed."""
        self._followed = set[ast.AST]()
        self._nodes = list[ast.AST]([tree])
        for node in self._nodes:
            for field, value in ast.iter_fields(node):
                for child in value if isinstance(value, list) else [value]:
                    is_kept = isinstance(child, ast.AST) and not isinstance(child, ast.expr_context)
                    if is_kept and field not in ("annotation", "returns"):
                        self._parents[child] = node, field
                        self._nodes.append(child)
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                self._uses[node.id if isinstance(node, ast.Name) else node.attr].append(node)

    def found(self) -> Steadiness:
        """Return what may show of the order of any set."""
        waiting = [node for node in self._nodes if _is_set(node)]
        most = Steadiness.STEADY
        while waiting and most < Steadiness.VARIES:
            node = waiting.pop()
            if node in self._followed:
                continue
            self._followed.add(node)
            result = self._shown(node)
            if isinstance(result, Steadiness):
                most = max(most, result)
            else:
                waiting += result
        return most

    def _shown(self, node: ast.AST) -> Steadiness | list[ast.AST]:
        """Return what shows of a set's order where it is used, or the nodes that are such a set in turn."""
        parent, field = self._parents[node]
        match parent:
            case ast.Tuple() if self._is_argument_of(parent, {"isinstance"}):
                return Steadiness.STEADY
            case ast.Call(func=ast.Name(id="isinstance")):
                return Steadiness.STEADY
            case ast.Call() if field == "func":
                return [parent]
            case ast.Call() if self._is_argument_of(node, _WITHOUT_ORDER):
                return Steadiness.STEADY
            case ast.Call(func=ast.Attribute(attr=name)) if field == "args" and name in (_ASKING | _MAKING) - {
                "update"
            }:
                return Steadiness.STEADY if name in _ASKING else [parent]
            case ast.Attribute(attr=name) if self._is_called(parent) and name in _ASKING | _MAKING:
                return Steadiness.STEADY if name in _ASKING else [self._parents[parent][0]]
            case ast.Compare() | ast.Expr() | ast.AugAssign() | ast.Assert():
                return Steadiness.STEADY
            case ast.UnaryOp(op=ast.Not()):
                return Steadiness.STEADY
            case ast.If() | ast.While() | ast.IfExp() if field == "test":
                return Steadiness.STEADY
            case ast.BinOp(op=op) if isinstance(op, _OPERATORS):
                return [parent]
            case ast.BoolOp() | ast.IfExp() | ast.Await():
                return [parent]
            case ast.comprehension() if field == "iter":
                made = self._parents[parent][0]
                without = isinstance(made, ast.SetComp) or self._is_argument_of(made, _WITHOUT_ORDER)
                return Steadiness.STEADY if without else Steadiness.VARIES
            case ast.comprehension() if field == "ifs":
                return Steadiness.STEADY
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target) | ast.NamedExpr(target=target):
                return self._stored(target, parent)
            case ast.Return():
                return Steadiness.SETS
        return Steadiness.VARIES

    def _stored(self, target: ast.expr, parent: ast.AST) -> Steadiness | list[ast.AST]:
        also: list[ast.AST] = [parent] if isinstance(parent, ast.NamedExpr) else []
        match target:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return [*self._uses.pop(name, ()), *also]  # once
        return Steadiness.VARIES

    def _is_argument_of(self, node: ast.AST, names: Collection[str]) -> bool:
        """Return whether a node is the only argument of a function, or one of several of `isinstance`."""
        match self._parents[node][0]:
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return name in names and node in args and (len(args) == 1 or name == "isinstance")
        return False

    def _is_called(self, attribute: ast.Attribute) -> bool:
        return self._parents.get(attribute, (None, ""))[1] == "func"


def _is_set(node: ast.AST) -> bool:
    """Return whether a node is a set, or what makes one."""
    match node:
        case ast.Set() | ast.SetComp() | ast.Name(id="set" | "frozenset"):
            return True
        case ast.BinOp(left=left, right=right, op=op):
            return isinstance(op, _OPERATORS) and any(map(_is_view, (left, right)))
    return False


def _is_view(node: ast.expr) -> bool:
    """Return whether an expression is `x.keys()` or `x.items()`: operators make sets of it."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS
