"""Programs that a comparison executes, and what their verdicts say."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from codealign.api.sandbox.v1 import sandbox_pb2 as sb

INPUTS, TESTS, MUTANT, MUTANTS, ADDED = "inputs", "tests", "mutant", "mutants", "added"
"""Purposes of trials: an answer at inputs or with another attempt's tests, one mutant (with tests or at inputs), many
mutants, an answer with added tests."""
_UNDECIDED = frozenset(
    {
        sb.VERDICT_UNSPECIFIED,
        sb.VERDICT_TIMED_OUT,
        sb.VERDICT_OUT_OF_MEMORY,
        sb.VERDICT_FLAKY,
        sb.VERDICT_REFUSED,
        sb.VERDICT_INFRASTRUCTURE,
    }
)
"""Verdicts that may be the machine's or the runner's doing, and say nothing about an answer and another's tests."""


@dataclass(frozen=True)
class Trial:
    """A program to execute."""

    purpose: str
    answer: int
    """Number of the answer."""
    other: int
    """Number of the attempt whose tests are executed; the answer's own otherwise."""
    program: sb.Program
    limits: sb.Limits

    @property
    def key(self) -> str:
        """A hash of everything that determines its result besides the runner."""
        data = self.program.SerializeToString(deterministic=True) + self.limits.SerializeToString(deterministic=True)
        return hashlib.sha256(data).hexdigest()


Execute = Callable[[Sequence[Trial]], Awaitable[Sequence[sb.Result | None]]]
"""Executes trials and returns their results in the same order. None: the infrastructure kept failing."""


def of_tests(purpose: str, i: int, j: int, code: str, tests: str) -> Trial:
    """Return the trial of code in the place of answer i, with tests in the place of those of attempt j."""
    return Trial(purpose, i, j, sb.Program(language=sb.LANGUAGE_PYTHON, code=code, tests=tests), sb.Limits())


def once(execute: Execute) -> Execute:
    """Return what executes each of equal programs once. Its result is that of all."""
    known: dict[str, sb.Result | None] = {}

    async def executed(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
        keys = [each.key for each in trials]
        new: dict[str, Trial] = {}
        for key, trial in zip(keys, trials, strict=True):
            if key not in known:
                new.setdefault(key, trial)  # the first, so that it is the same when further attempts follow
        if new:
            known.update(zip(new, await execute(list(new.values())), strict=True))
        return [known[key] for key in keys]

    return executed


def passes(result: sb.Result | None) -> bool | None:
    """Return whether an answer passes tests. None: undecided, as without a result."""
    if result is None or result.verdict in _UNDECIDED:
        return None
    return result.verdict == sb.VERDICT_PASSED
