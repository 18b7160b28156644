"""What is known of the attempts at one instruction, and what follows from it for each pair of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.coordinator.agreement import classes
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import RETURNED, UNOBSERVED, Observations, Outcome, Outcomes
from codealign.coordinator.agreement.steadiness import Steadiness
from codealign.coordinator.agreement.strength import MutantResult, equal_but_for_booleans
from codealign.coordinator.agreement.subjects import Subject


@dataclass(frozen=True)
class Evidence:
    """What is known of one attempt."""

    observations: Observations
    passed: tuple[bool | None, ...]
    """Whether its answer passes the tests of each attempt, its own included. None: undecided."""
    claims: frozenset[int] = frozenset()
    """Numbers of the inputs that its own tests call; see `inputs.claims`."""
    mutants: tuple[MutantResult, ...] = ()
    """Mutants of its answer, judged by its own tests."""
    is_faulted: bool = False
    """Whether it was not observed because the infrastructure kept failing."""
    steadiness: Steadiness = Steadiness.STEADY
    """What may differ from process to process in the results of its answer."""


class Attempts:
    """All attempts at one instruction.

    Args:
        evidence: What is known of each.
        inputs: The inputs that the observations are about.
        subject: What is called, as most attempts call it.
        plurality: See `classes.counted`.
    """

    def __init__(
        self, evidence: Sequence[Evidence], inputs: Sequence[Input], subject: Subject | None, plurality: float
    ) -> None:
        self.evidence, self.inputs, self.subject = evidence, inputs, subject
        self.outcomes: list[Outcomes] = [each.observations.outcomes for each in evidence]
        self.counted = classes.counted(inputs, self.outcomes, plurality)
        """Numbers of the inputs that count."""
        self._told = [[_told(each) for each in self._sound_oracles(j)] for j in self.numbers]
        self.refuting = [[list(self._refuting(i, j)) for j in self.numbers] for i in self.numbers]
        """Numbers of the inputs at which the oracles of attempt j contradict answer i."""
        self.results = [[self._result(i, j) for j in self.numbers] for i in self.numbers]
        """Whether answer i passes the tests of attempt j and agrees with their oracles. None: undecided."""
        self.by_calls = any(self.observed(i) for i in self.numbers)
        """Whether calls could be compared. Otherwise only the tests' results can."""
        found = self.outcomes if self.by_calls else [_of_results(each.passed) for each in evidence]
        self.classes = classes.agreeing(found, self.counted if self.by_calls else self.numbers)
        self._place_faulted()

    def _place_faulted(self) -> None:
        """Place attempts that the infrastructure kept from being observed: with those that pass the same tests."""
        passed = [_of_results(each.passed) for each in self.evidence]
        for i in self.numbers:
            if self.evidence[i].is_faulted and not self.class_of(i):
                self.classes = classes.joined(self.classes, i, passed, self.numbers)

    @property
    def numbers(self) -> range:
        """Numbers of the attempts."""
        return range(len(self.evidence))

    def observed(self, i: int) -> list[int]:
        """Return the inputs that count and at which attempt i was observed."""
        return [number for number in self.counted if self.outcomes[i][number].counts]

    def contradicting(self, i: int, j: int) -> list[int]:
        """Return the inputs that count and at which attempts i and j contradict each other."""
        return [number for number in self.counted if self.outcomes[i][number].contradicts(self.outcomes[j][number])]

    def class_of(self, i: int) -> tuple[int, ...]:
        """Return the class of attempt i. Empty: it is in none."""
        return next((members for members in self.classes if i in members), ())

    def confirmed(self, i: int, j: int) -> int:
        """Return the number of varied inputs at which an oracle of attempt j says what answer i does."""
        found = (
            sum(1 for n in self.counted if not self.inputs[n].claimed and each[n].agrees(self.outcomes[i][n]))
            for each in self._told[j]
        )
        return max(found, default=0)

    def oracles(self, j: int) -> Sequence[Outcomes]:
        """Return what the oracles of attempt j say at the inputs; unobserved where they say nothing."""
        return self._told[j]

    def _result(self, i: int, j: int) -> bool | None:
        return False if self.refuting[i][j] else self.evidence[i].passed[j]

    def _refuting(self, i: int, j: int) -> Iterator[int]:
        for told in self._told[j]:
            yield from (n for n in self.counted if told[n].counts and _differs(self.outcomes[i][n], told[n]))

    def _sound_oracles(self, j: int) -> Iterator[Outcomes]:
        """Yield the oracles of an attempt's tests without those that contradict these tests.

        If the answer passes its own tests, it does at their inputs what they expect. An oracle that says something else
        there was generalized wrongly. An oracle's exception says nothing: it was not written for the input.
        """
        own = self.evidence[j]
        for oracle in own.observations.oracles:
            wrong = any(oracle[n].kind == RETURNED and _differs(self.outcomes[j][n], oracle[n]) for n in own.claims)
            if not (wrong and own.passed[j]):
                yield oracle


def _told(oracle: Outcomes) -> Outcomes:
    return [each if each.kind == RETURNED else Outcome(UNOBSERVED, "the oracle says nothing") for each in oracle]


def _differs(outcome: Outcome, expected: Outcome) -> bool:
    """Return whether a call does something else than return what an oracle says, as `==` sees it: 1 equals True."""
    if not outcome.counts or (outcome.kind, outcome.text) == (expected.kind, expected.text):
        return False
    return outcome.kind != RETURNED or not equal_but_for_booleans(outcome.text, expected.text)


def _of_results(passed: Sequence[bool | None]) -> Outcomes:
    """Return the results of tests as outcomes, so that attempts agree if they pass the same tests."""
    return [Outcome(UNOBSERVED) if each is None else Outcome(RETURNED, str(each)) for each in passed]
