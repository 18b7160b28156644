"""What is kept of a comparison for people: results of pairs, and inputs that tell classes and mutants apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum

from codealign.coordinator.agreement.evidence import Attempts
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import Outcome, Outcomes

MAX_INPUTS = 3
"""Inputs that tell classes apart. With two classes, one is enough."""


class Pair(Enum):
    """What an answer does with the tests of an attempt."""

    PASSED = "passed"
    FAILED = "failed"
    CONTRADICTS = "contradicts"
    """It does not fail them, but contradicts one of their oracles at another input."""
    UNDECIDED = "undecided"
    NOT_EXECUTED = "not executed"


def pairs(attempts: Attempts, executed: Collection[tuple[int, int]]) -> list[Pair]:
    """Return what every answer does with the tests of every attempt, answer by answer.

    Args:
        attempts: All attempts.
        executed: Answers and attempts whose tests they were executed with. Own tests always were.
    """
    return [_pair(attempts, i, j, i == j or (i, j) in executed) for i in attempts.numbers for j in attempts.numbers]


def _pair(attempts: Attempts, i: int, j: int, executed: bool) -> Pair:
    passed = attempts.evidence[i].passed[j]
    if passed is False:
        return Pair.FAILED
    if attempts.refuting[i][j]:
        return Pair.CONTRADICTS
    if passed:
        return Pair.PASSED
    return Pair.UNDECIDED if executed else Pair.NOT_EXECUTED


def telling_inputs(attempts: Attempts, classes: Sequence[Sequence[int]]) -> list[tuple[int, list[tuple[int, Outcome]]]]:
    """Choose inputs at which the winning class does something else than the others.

    The first tells most classes apart from it; of equal ones it is the shortest, then the first. Each further one adds
    another class.

    Args:
        attempts: All attempts.
        classes: Attempts that agree, the winning class first.

    Returns:
        The number of each input, with the places of the classes that were observed there, and what they do.
    """
    found: list[tuple[int, list[tuple[int, Outcome]]]] = []
    left = set(range(1, len(classes)))
    known = {number: _outcomes(attempts, classes, number) for number in attempts.counted}
    for _ in range(MAX_INPUTS):
        told = {number: left & _against_the_first(there) for number, there in known.items()}
        best = min(told, key=lambda n: (-len(told[n]), attempts.inputs[n].arguments.chars, n), default=None)
        if best is None or not told[best]:
            break
        found.append((best, sorted(known[best].items())))
        left -= told[best]
    return found


def _outcomes(attempts: Attempts, classes: Sequence[Sequence[int]], number: int) -> dict[int, Outcome]:
    """Return what each class does at an input: its members that were observed there agree."""
    found = {}
    for place, members in enumerate(classes):
        observed = (attempts.outcomes[i][number] for i in members)
        outcome = next((each for each in observed if each.counts), None)
        if outcome is not None:
            found[place] = outcome
    return found


def _against_the_first(there: dict[int, Outcome]) -> set[int]:
    return {place for place, outcome in there.items() if 0 in there and outcome.contradicts(there[0])}


def difference(original: Outcomes, mutant: Outcomes, inputs: Sequence[Input]) -> int | None:
    """Return the shortest input at which a mutant does something else than the answer; None if there is none."""
    found = [
        number for number, (one, other) in enumerate(zip(original, mutant, strict=False)) if one.contradicts(other)
    ]
    return min(found, key=lambda n: (inputs[n].arguments.chars, n), default=None)
