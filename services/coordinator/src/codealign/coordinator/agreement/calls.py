"""What a tests text asserts of an answer: the function under test, and the cases.

A case is an assertion about one call with literal arguments: `assert f(2) == 4`, `assert not f([])`,
`self.assertEqual(f(2), 4)`, `assert abs(f(2) - 0.5) < 1e-9`, `with self.assertRaises(ValueError): f(-1)`. A class is
under test through what tests look at of a new object: `assert Square(2).area() == 4`. A class whose objects are only
used step by step cannot be called with other inputs. Assertions of any other form are counted as `whole`: they can only
be executed with the rest of the tests. Code and tests were written by a model. They are parsed, never executed, and
whatever is too large or nested too deeply is left out.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from codealign.coordinator.agreement import assertions, literals, oracles
from codealign.coordinator.agreement.assertions import Found
from codealign.coordinator.agreement.oracles import Oracle, Pair
from codealign.coordinator.agreement.subjects import Definitions, Parameter, Subject, Use, view
from codealign.coordinator.agreement.values import source
from codealign.coordinator.reading.python_code import BOM, Offsets, parsed

MAX_CHARS = 32_768
"""Characters of code and of tests."""
MAX_EXPECTATION = 2_000
"""Characters of an expectation."""
MAX_NODES = 500
"""Nodes of an expectation."""
_MAX_PREAMBLE = 32
_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_FLIPPED = {"==": "==", "!=": "!=", "is": "is", "is not": "is not", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Arguments:
    """Arguments of a call, as sources that `literals.source` writes."""

    positional: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...] = ()

    @property
    def chars(self) -> int:
        """Characters of all sources."""
        return sum(map(len, self.positional)) + sum(len(name) + len(text) for name, text in self.keywords)

    def __str__(self) -> str:
        """Return them as they stand in a call."""
        return ", ".join([*self.positional, *(f"{name}={text}" for name, text in self.keywords)])


@dataclass(frozen=True)
class Case:
    """An assertion about one call."""

    line: int
    """Line in the tests, from 1."""
    arguments: Arguments
    relation: str
    """"true", "false", "close", "raises", or a comparison operator: the result stands at its left."""
    expectation: str
    """Source of what the result is compared with, or the exception's name. Empty: the relation needs none."""
    view: str
    """What is compared, with `_` for the result: `sorted(_)`. Empty: the result."""


@dataclass(frozen=True)
class Reading:
    """What was found in an answer and its tests."""

    subject: Subject | None
    """What is under test. None: nothing that can be called with other inputs."""
    reason: str = ""
    """Why there is no subject. Empty: there is one."""
    cases: tuple[Case, ...] = ()
    calls: tuple[Arguments, ...] = ()
    """Arguments of all calls of the subject in the tests, in their order, each once."""
    assertions: int = 0
    """Assertions in all, those in loops over tables once for each row."""
    whole: int = 0
    """Assertions of these that are no case."""
    oracles: tuple[Oracle, ...] = ()
    preamble: tuple[str, ...] = field(default=(), repr=False)
    """The tests' imports, definitions and constants, which oracles may need. Empty if there are no oracles."""
    defined: tuple[str, ...] = ()
    """Functions and classes of the code, sorted."""


def read(code: str, tests: str) -> Reading:
    """Find the function under test and the cases.

    Args:
        code: The answer's code.
        tests: Its tests.
    """
    code, tests = code.removeprefix(BOM), tests.removeprefix(BOM)
    if max(len(code), len(tests)) > MAX_CHARS:
        return Reading(None, f"code or tests have more than {MAX_CHARS} characters")
    trees = parsed(code), parsed(tests)
    if trees[0] is None or trees[1] is None:
        return Reading(None, "code or tests do not compile")
    try:
        return _read(Definitions(trees[0]), trees[1], tests)
    except (RecursionError, ValueError, MemoryError):  # ValueError: an integer of too many digits to be written
        return Reading(None, "code or tests are nested too deeply, or have too large a literal")


def _read(definitions: Definitions, tests: ast.Module, text: str) -> Reading:
    found = [(each, definitions.uses(each.expression)) for each in assertions.find(tests)]
    total = sum(1 for each, _ in found if each.is_assertion)
    told = [
        (each.is_assertion, dict.fromkeys(use.key for use in uses if _tells(use, each, definitions)))
        for each, uses in found
    ]
    counts = Counter(key for is_assertion, keys in told if is_assertion for key in keys)
    counts = counts or Counter(key for _, keys in told for key in keys)
    if not counts:
        some = "only objects that they then use" if any(uses for _, uses in found) else "nothing that the code defines"
        reason = f"the tests call {some}"
        return Reading(None, reason, assertions=total, whole=total, defined=tuple(sorted(definitions.names)))
    # Of equal counts, `max` takes the first: what the tests call first.
    key = max(counts, key=lambda each: counts[each])
    subject = Subject(*key, definitions.parameters(key[0]))
    cases, pairs, called = [], [], dict[Arguments, None]()
    for each, uses in found:
        own = [(use, *sources) for use in uses if use.key == key and (sources := _arguments(use, subject, definitions))]
        called.update((arguments, None) for _, arguments, _ in own)
        if (
            len(own) == 1 == len(uses)
            and each.is_assertion
            and not (each.with_objects and subject.name in definitions.classes)
        ):
            use, arguments, nodes = own[0]
            if (case := _case(each, use, arguments)) is not None:
                cases.append(case[0])
                if case[0].relation in ("==", "is") and not case[0].view and not arguments.keywords and case[1]:
                    pairs.append(Pair(nodes, case[1]))
    names = [parameter.name for parameter in subject.parameters if parameter.kind == "positional"]
    found_oracles = oracles.find(pairs, names, definitions.names)
    preamble = tuple(_preamble(tests, text, definitions)) if found_oracles else ()
    return Reading(
        subject,
        cases=tuple(cases),
        calls=tuple(called),
        assertions=total,
        whole=total - len(cases),
        oracles=found_oracles,
        preamble=preamble,
        defined=tuple(sorted(definitions.names)),
    )


def _tells(use: Use, found: Found, definitions: Definitions) -> bool:
    """Return whether a use may be what is under test.

    Of a class, it is one that looks at something of an object, which was made or asked with arguments. The object
    itself is no result: its attributes are named as its class likes. What a new object without arguments tells, all
    tell.
    """
    owner = use.callee.partition(".")[0].removesuffix("()")
    if owner not in definitions.classes:
        return True
    is_looked_at = bool(use.view) or use.callee != owner
    return is_looked_at and bool(use.arguments or use.keywords) and (found.is_assertion or not found.with_objects)


def common_subject(readings: Sequence[Reading]) -> Subject | None:
    """Return what most attempts at one instruction call; of equally frequent ones, what the first does."""
    counts = Counter((each.subject.callee, each.subject.view) for each in readings if each.subject)
    subjects = [each.subject for each in readings if each.subject]
    return max(subjects, key=lambda each: counts[each.callee, each.view], default=None)


def subject_for(reading: Reading, common: Subject | None) -> Subject | None:
    """Return what to call in an attempt: the common subject where its code defines that, else its own."""
    return common if common is not None and common.name in reading.defined else reading.subject


def _arguments(use: Use, subject: Subject, definitions: Definitions) -> tuple[Arguments, list[ast.expr]] | None:
    """Return literal arguments, and the nodes of the positional ones, or None if some are not literal.

    Keywords become positional where the subject's signature says which: other attempts may name their parameters
    otherwise.
    """
    positional: list[ast.expr] = []
    keywords: dict[str, ast.expr] = {}
    for each in use.arguments:
        if not isinstance(each, ast.Starred):
            positional.append(each)
        elif isinstance(each.value, ast.Tuple | ast.List):
            positional += each.value.elts
        else:
            return None
    for keyword in use.keywords:
        if keyword.arg is not None:
            keywords[keyword.arg] = keyword.value
        elif isinstance(keyword.value, ast.Dict):
            for key, item in zip(keyword.value.keys, keyword.value.values, strict=True):
                if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                    return None
                keywords[key.value] = item
        else:
            return None
    for parameter in subject.parameters[len(positional) :]:
        if parameter.kind != "positional" or parameter.name not in keywords:
            break
        positional.append(keywords.pop(parameter.name))
    try:
        texts = [source(literals.value(each, definitions.classes)) for each in positional]
        named = [(name, source(literals.value(each, definitions.classes))) for name, each in keywords.items()]
    except literals.NotLiteral:
        return None
    made = Arguments(tuple(texts), tuple(sorted(named)))
    return (made, positional) if made.chars <= literals.MAX_CHARS else None


def _case(found: Found, use: Use, arguments: Arguments) -> tuple[Case, ast.expr | None] | None:
    """Return the case of an assertion with its expectation, or None if it is of no known form."""
    if found.raises:
        return Case(found.line, arguments, "raises", found.raises, ""), None
    relation, looked_at, expectation = _relation(found.expression, use.node)
    if not all(_is_written(each) for each in (looked_at, expectation) if each is not None):
        return None
    text = "" if expectation is None else ast.unparse(expectation)
    shown = view(looked_at, use.node)
    if len(text) > MAX_EXPECTATION or (looked_at is not use.node and not shown):
        return None
    return Case(found.line, arguments, relation, text, shown if shown != use.view else ""), expectation


def _is_written(node: ast.expr) -> bool:
    """Return whether an expression is written out: it is not too large, and every Python prints it equally."""
    nodes = list(islice(ast.walk(node), MAX_NODES + 1))
    return len(nodes) <= MAX_NODES and not any(isinstance(each, ast.JoinedStr) for each in nodes)


def _relation(condition: ast.expr, call: ast.expr) -> tuple[str, ast.expr, ast.expr | None]:
    """Return the relation, the expression with the call that it is about, and what this is compared with."""
    if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
        return "false", condition.operand, None
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1:
        left, right = condition.left, condition.comparators[0]
        operator = _OPERATORS[type(condition.ops[0])]
        if (difference := _difference(left)) and operator in ("<", "<="):
            return "close", *_ordered(difference, call)
        if _contains(left, call):
            return operator, left, right
        if operator in _FLIPPED:
            return _FLIPPED[operator], right, left
    if isinstance(condition, ast.Call) and len(condition.args) >= 2 and _name(condition.func) in ("isclose", "approx"):
        return "close", *_ordered(condition.args[:2], call)
    return "true", condition, None


def _difference(node: ast.expr) -> Sequence[ast.expr]:
    """Return the two sides of `abs(a - b)`, or nothing."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and _name(node.func) in ("abs", "fabs"):
        inner = node.args[0]
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub):
            return inner.left, inner.right
    return ()


def _ordered(sides: Sequence[ast.expr], call: ast.expr) -> tuple[ast.expr, ast.expr]:
    """Return the side with the call first."""
    return (sides[0], sides[1]) if _contains(sides[0], call) else (sides[1], sides[0])


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else str(getattr(function, "id", ""))


def _contains(node: ast.expr, call: ast.expr) -> bool:
    return any(each is call for each in ast.walk(node))


def _preamble(tests: ast.Module, text: str, definitions: Definitions) -> Iterator[str]:
    """Yield statements that bind names and do not mention what the answer defines."""
    offsets, kept = Offsets(text), 0
    for each in tests.body:
        binds = isinstance(each, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef) or (
            isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
        )
        names = {node.id for node in ast.walk(each) if isinstance(node, ast.Name)} if binds else set()
        if binds and kept < _MAX_PREAMBLE and names.isdisjoint(definitions.names):
            kept += 1
            first = min([each, *getattr(each, "decorator_list", ())], key=lambda node: node.lineno)
            begin = offsets.of(first.lineno, 0 if first is not each else first.col_offset)
            yield text[begin : offsets.span(each)[1]]


__all__ = ["Arguments", "Case", "Oracle", "Parameter", "Reading", "Subject", "common_subject", "read", "subject_for"]
