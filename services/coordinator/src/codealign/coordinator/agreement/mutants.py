"""Mutants of an answer: programs with one small fault, which good tests detect.

A test suite's mutation score is the share of mutants that it kills (Jia and Harman, "An Analysis and Survey of the
Development of Mutation Testing", IEEE TSE 37(5), 2011). Tests that pass because they try nothing kill few.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.common.sequences import alternating
from codealign.coordinator.agreement import mutations
from codealign.coordinator.agreement.mutations import Mutation, short
from codealign.coordinator.reading.python_code import BOM, compiles, parsed

LIMIT = 24
"""Mutants of one answer, unless asked for otherwise."""
MAX_CHARS = 8_192
"""Characters of code that is mutated."""
_KINDS = (
    "comparison",
    "boundary",
    "condition",
    "boolean",
    "arithmetic",
    "slice",
    "call",
    "default",
    "return",
    "constant",
)
"""In the order in which they are taken within a line: what weak tests miss most often first."""

_FAULTS = (RecursionError, ValueError, MemoryError)
"""Why a tree cannot be written. ValueError: an integer of too many digits."""


@dataclass(frozen=True)
class Mutant:
    """Code with one small fault."""

    line: int
    """Line of the fault, from 1."""
    kind: str
    """See `mutations.Mutation`."""
    description: str
    """For people: "line 3: `<= 5` → `< 5`"."""
    code: str


def mutants(code: str, limit: int = LIMIT) -> tuple[Mutant, ...]:
    """Return mutants of code, spread over its lines, no two of the same meaning to Python's parser.

    Args:
        code: The code. If it does not compile, or has more than MAX_CHARS characters, there are no mutants.
        limit: Most mutants.
    """
    code = code.removeprefix(BOM)
    tree = parsed(code) if len(code) <= MAX_CHARS else None
    if tree is None:
        return ()
    try:
        seen = {ast.unparse(tree)}
        found = mutations.find(code, tree)
    except _FAULTS:
        return ()
    made: list[Mutant] = []
    # Nearly all are valid; the bound is for code that was written against us.
    for mutation in list(_spread(found, limit))[: 2 * limit]:
        text = code[: mutation.start] + mutation.text + code[mutation.end :]
        normal = _normal(text)
        if normal is None or normal in seen:
            continue
        seen.add(normal)
        before, after = map(short, mutation.shown)
        made.append(Mutant(mutation.line, mutation.kind, f"line {mutation.line}: `{before}` → `{after}`", text))
        if len(made) == limit:
            break
    return tuple(made)


def _normal(code: str) -> str | None:
    """Return a text that is equal for code of the same meaning to the parser, or None if there is none."""
    tree = parsed(code) if compiles(code) else None
    try:
        return None if tree is None else ast.unparse(tree)
    except _FAULTS:  # a fault may nest deeper than the code that it is in
        return None


def _spread(found: Sequence[Mutation], limit: int) -> Iterator[Mutation]:
    """Yield one mutation of each line, then a second of each; of many lines, evenly spaced ones first."""
    by_line: dict[int, list[Mutation]] = {}
    for mutation in found:
        by_line.setdefault(mutation.line, []).append(mutation)
    lines = [sorted(some, key=lambda each: _KINDS.index(each.kind)) for _, some in sorted(by_line.items())]
    chosen = list(range(len(lines)))
    if len(lines) > limit > 0:
        first = dict.fromkeys(number * len(lines) // limit for number in range(limit))
        chosen = [*first, *(number for number in range(len(lines)) if number not in first)]
    return alternating([lines[number] for number in chosen])
