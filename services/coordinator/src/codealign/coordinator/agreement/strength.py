"""How strong an attempt's tests are, and assertions that make them stronger."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.common.foreign_python import without_warnings
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import RETURNED, Outcome, Outcomes
from codealign.coordinator.agreement.subjects import HOLE, Subject
from codealign.coordinator.agreement.trees import with_names
from codealign.coordinator.agreement.values import Value, source

MAX_ASSERTIONS = 3
"""Assertions added to a tests text."""
MAX_CHARS = 120
"""Characters of an added assertion: a line."""
_FAULTS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)
_IMPORT = "import math"
_TOLERANCE = 1e-09
_BOOLEAN = re.compile("True|False")


@dataclass(frozen=True)
class MutantResult:
    """What happened to one mutant of an answer."""

    description: str
    killed: bool | None
    """Whether the answer's own tests fail on it. None: undecided."""
    outcomes: tuple[Outcome, ...] = ()
    """At each input. Empty: it was not observed."""


@dataclass(frozen=True)
class Strength:
    """How many mutants of an answer its tests kill."""

    killed: int
    survived: int
    """Without those that seem equivalent to the answer."""
    equivalent: int
    """Survivors that do the same as the answer at all inputs."""
    score: float | None
    """killed / (killed + survived). None: no mutant was decided, or none of those that survive could be observed."""


@dataclass(frozen=True)
class AddedAssertion:
    """An assertion that the observations prove for the answer, and that detects what the tests do not."""

    text: str
    """A line of Python. It may need `import math`; see `strengthened`."""
    input: int
    """Number of the input."""
    kills: tuple[str, ...]
    """What it detects: descriptions of mutants, and "attempt 2" for an answer that passes the tests."""
    agreed_by: tuple[int, ...]
    """Attempts of the winning class that were observed at the input, and agree."""


def is_equivalent(original: Outcomes, mutant: Outcomes) -> bool | None:
    """Estimate whether a mutant is equivalent: it does what the answer does at all inputs.

    Returns:
        None if the two were not observed at any common input.
    """
    pairs = [(one, other) for one, other in zip(original, mutant, strict=False) if one.counts and other.counts]
    return not any(one.contradicts(other) for one, other in pairs) if pairs else None


def strength(original: Outcomes, mutants: Sequence[MutantResult]) -> Strength:
    """Return the mutation score of an answer's tests.

    A mutant that survives and seems equivalent counts for nothing, and so does one that was not observed. If none of
    them was, since nothing can be called, the tests may miss any share, so there is no score.

    Args:
        original: What the answer does.
        mutants: Its mutants.
    """
    killed = sum(1 for mutant in mutants if mutant.killed)
    survivors = [is_equivalent(original, mutant.outcomes) for mutant in mutants if mutant.killed is False]
    survived, equivalent = survivors.count(False), survivors.count(True)
    decided = killed + survived
    known = decided and (survived or equivalent or not survivors)
    return Strength(killed, survived, equivalent, round(killed / decided, 6) if known else None)


def added_assertions(
    subject: Subject, inputs: Sequence[Input], members: Sequence[Outcomes], targets: Sequence[tuple[str, Outcomes]]
) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Choose input-output pairs that detect what the tests do not, those that detect most first.

    Args:
        subject: What is called.
        inputs: All inputs.
        members: Outcomes of the attempts of the winning class, and of their oracles. At an input, another one must do
            the same as the first that was observed there.
        targets: Descriptions and outcomes of what should be detected.

    Yields:
        Number of the input, assertion, and descriptions of what it detects and no earlier one does.
    """
    candidates = []
    for number, each in enumerate(inputs):
        observed = [own[number] for own in members if own[number].counts]
        agreeing = sum(1 for own in observed if not _detects(observed[0], own))
        text = _assertion(subject, each, observed[0]) if agreeing > 1 else ""
        if text:
            detected = {place for place, (_, own) in enumerate(targets) if _detects(observed[0], own[number])}
            candidates.append((len(text), number, text, detected))
    left = set(range(len(targets)))
    for _ in range(MAX_ASSERTIONS):
        best = max(candidates, key=lambda each: (len(each[3] & left), -each[0], -each[1]), default=None)
        if best is None or not best[3] & left:
            return
        yield best[1], best[2], tuple(targets[place][0] for place in sorted(best[3] & left))
        left -= best[3]


def _detects(expected: Outcome, other: Outcome) -> bool:
    """Return whether an assertion about the returned value fails: it does not see prints and changed arguments."""
    if not other.counts or (other.kind, other.text) == (expected.kind, expected.text):
        return False
    return other.kind != RETURNED or not _passes_for(expected, other)


def _passes_for(expected: Outcome, other: Outcome) -> bool:
    """Return whether an assertion holds for another value: 1 equals True, and a tolerance hides small differences."""
    if not (expected.floats or other.floats or _BOOLEAN.search(f"{expected.text} {other.text}")):
        return False
    try:
        wanted, found = _literal(expected.text), _literal(other.text)
        if wanted is None or isinstance(wanted, bool):
            return False  # it is compared by `is`
        if expected.floats:
            return math.isclose(wanted, found, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        return bool(wanted == found)
    except (*_FAULTS, OverflowError):
        return False


def _assertion(subject: Subject, tried: Input, outcome: Outcome) -> str:
    """Return an assertion with literals only, or "" if there is none of one line."""
    if outcome.kind != RETURNED or not all(map(_is_literal, _texts(tried))):
        return ""
    try:
        value = _literal(outcome.text)
        expected = source(value)  # raises a ValueError for `0xfff...`, which has too many digits to be written
        called = _call(subject, tried)
    except _FAULTS:
        return ""
    if outcome.floats:
        if type(value) not in (int, float):
            return ""  # a comparison with a tolerance would need the structure
        text = f"assert math.isclose({called}, {expected}, rel_tol={_TOLERANCE}, abs_tol={_TOLERANCE})"
    elif value is None or isinstance(value, bool):
        text = f"assert {called} is {expected}"
    else:
        text = f"assert {called} == {expected}"
    return text if len(text) <= MAX_CHARS else ""


def _call(subject: Subject, tried: Input) -> str:
    """Return the call, and what is looked at of its result."""
    call = f"{subject.callee}({tried.arguments})"
    if not subject.view:
        return call
    looked_at = ast.parse(subject.view, mode="eval").body
    return ast.unparse(with_names(looked_at, {HOLE: ast.parse(call, mode="eval").body}))


def _texts(tried: Input) -> Iterator[str]:
    yield from tried.arguments.positional
    yield from (text for _, text in tried.arguments.keywords)


def _is_literal(text: str) -> bool:
    try:
        _literal(text)
    except _FAULTS:
        return False
    return True


def equal_but_for_booleans(one: str, other: str) -> bool:
    """Return whether two forms are those of literals that are equal, though one has True where the other has 1."""
    if not _BOOLEAN.search(f"{one} {other}"):
        return False
    try:
        return bool(_literal(one) == _literal(other))
    except _FAULTS:
        return False


def is_set(outcome: Outcome) -> bool:
    """Return whether a call returned a set that can be written."""
    try:
        return outcome.kind == RETURNED and isinstance(_literal(outcome.text), set)
    except _FAULTS:
        return False


def _literal(text: str) -> Value:
    """Return the value of a literal. An answer may have made up the text, so it may be anything."""
    with without_warnings():
        return ast.literal_eval(text)


def strengthened(tests: str, assertions: Sequence[AddedAssertion]) -> str:
    """Append assertions to a tests text, with the import that they need."""
    if not assertions:
        return tests
    lines = [each.text for each in assertions]
    if any("math.isclose(" in line for line in lines):
        lines.insert(0, _IMPORT)
    return "\n".join([tests.rstrip("\r\n"), *lines, ""])
