"""Which mutants of an answer its tests detect, and what the others do.

Mutants are executed together where that is possible (`batching`), otherwise each alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import batching, separable
from codealign.coordinator.agreement.batching import Fate
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.mutants import Mutant
from codealign.coordinator.agreement.outcomes import Outcome
from codealign.coordinator.agreement.strength import MutantResult
from codealign.coordinator.agreement.subjects import Subject
from codealign.coordinator.agreement.trials import MUTANT, MUTANTS, Execute, Trial, of_tests, passes

_MOST_BATCHES = 4
"""Programs with many mutants. What is left after them is executed alone."""


@dataclass(frozen=True)
class Mutated:
    """An answer, and how its mutants are observed."""

    number: int
    """Of the answer."""
    code: str
    tests: str
    """Which the answer passes."""
    subject: Subject | None
    """What to call. None: nothing can be called."""
    inputs: Sequence[Input]
    observe: Callable[[str], Trial]
    """Returns the trial that observes a code at the inputs."""
    read: Callable[[Trial, sb.Result | None], tuple[Outcome, ...]]
    """Returns what such a trial's result says."""


async def tried(
    answer: Mutated, made: Sequence[Mutant], execute: Execute, *, together: bool = True
) -> list[tuple[Mutant, MutantResult]]:
    """Execute mutants with the tests of their answer, and observe those that survive.

    Args:
        answer: The answer.
        made: Its mutants.
        execute: Executes programs.
        together: Whether many mutants may share an execution.
    """
    fates = await _together(answer, made, execute) if together else {}
    alone = [each for each in made if each not in fates]
    results = await execute([of_tests(MUTANT, answer.number, answer.number, each.code, answer.tests) for each in alone])
    fates.update((each, Fate(_killed(result))) for each, result in zip(alone, results, strict=True))
    unseen = [each for each in made if fates[each].killed is False and fates[each].outcomes is None]
    if answer.subject is not None and answer.inputs and unseen:
        trials = [answer.observe(each.code) for each in unseen]
        told = await execute(trials)
        for each, trial, result in zip(unseen, trials, told, strict=True):
            fates[each] = Fate(False, answer.read(trial, result))
    return [(each, MutantResult(each.description, fates[each].killed, fates[each].outcomes or ())) for each in made]


async def _together(answer: Mutated, made: Sequence[Mutant], execute: Execute) -> dict[Mutant, Fate]:
    """Return what became of the mutants that can be decided in common executions."""
    fates: dict[Mutant, Fate] = {}
    left = list(made)
    proves = separable.proves(answer.tests)
    for _ in range(_MOST_BATCHES):
        key = "\n".join([answer.tests, *(str(each.arguments) for each in answer.inputs), *(each.code for each in left)])
        codes = [each.code for each in left]
        program = batching.program(answer.code, answer.tests, codes, key, answer.subject, answer.inputs)
        if len(left) < 2 or program is None:
            break
        trial = Trial(MUTANTS, answer.number, answer.number, program, batching.LIMITS)
        (result,) = await execute([trial])
        if result is None:
            break
        batch = batching.read(result.stdout.data, key, len(left), len(answer.inputs), proves=proves)
        found = list(zip(left, batch.fates, strict=True))
        fates.update((each, fate) for each, fate in found if fate is not None and fate.killed is not None)
        left = [each for each, fate in found if fate is None]
        if not batch.ended:
            left = left[1:]  # the first of them may be why
    return fates


def _killed(result: sb.Result | None) -> bool | None:
    """Return whether tests detect a mutant. One that no longer ends is detected."""
    if result is not None and result.verdict == sb.VERDICT_TIMED_OUT:
        return True
    passed = passes(result)
    return None if passed is None else not passed
