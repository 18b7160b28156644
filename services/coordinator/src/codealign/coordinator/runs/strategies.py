"""Which of a group's candidates become rows: one class for each value of SelectionSettings.strategy.

Where nothing is executed every candidate counts as a pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.runs.groups import Candidate, Group
from codealign.coordinator.runs.prompting import pass_rank

FAILURES = (
    sb.VERDICT_FAILED_ASSERTION,
    sb.VERDICT_RAISED,
    sb.VERDICT_TIMED_OUT,
    sb.VERDICT_OUT_OF_MEMORY,
    sb.VERDICT_OUTPUT_LIMIT,
    sb.VERDICT_PROCESS_LIMIT,
    sb.VERDICT_DISK_LIMIT,
    sb.VERDICT_CRASHED,
    sb.VERDICT_EXITED_EARLY,
)
"""Verdicts on a program that was executed and failed."""
EXECUTED = (
    sb.VERDICT_PASSED,
    *FAILURES,
    sb.VERDICT_SYNTAX_ERROR,
    sb.VERDICT_NO_TESTS,
    sb.VERDICT_FLAKY,
    sb.VERDICT_COMPLETED,
)
"""Every verdict on a program that the sandbox took."""

KeyOf = Callable[[Candidate], str]


class Strategy(ABC):
    """A way to choose among the candidates of a group."""

    name: ClassVar[str]
    fact: ClassVar[str]
    """For a version's card."""
    draws_all: ClassVar[bool] = False
    """Every attempt is drawn before anything is chosen; else no more after the first candidate that is eligible."""
    several: ClassVar[bool] = False
    """Each eligible candidate of a group becomes a row, not one of them."""
    verdicts: ClassVar[Sequence[sb.Verdict.ValueType]] = (sb.VERDICT_PASSED,)
    """Those that a candidate may have."""

    def takes(self, verdict: sb.Verdict.ValueType | None) -> bool:
        """A candidate with this verdict (None: the pipeline executes nothing) may become a row."""
        return verdict is None or verdict in self.verdicts

    def ordered(self, found: Sequence[Candidate], run: pb.Run, key_of: KeyOf) -> list[Candidate]:  # noqa: ARG002
        """The eligible candidates of a round in the order of preference."""
        return sorted(found)

    @abstractmethod
    def why(self, group: Group, rank: int) -> str:
        """Why the candidate of this rank is chosen, in words."""


class FirstPass(Strategy):
    """The lowest attempt that passes; nothing is drawn after it."""

    name = "first-pass"
    fact = "lowest attempt that passes"

    def why(self, group: Group, rank: int) -> str:
        """The attempt's number."""
        return f"attempt {group.eligible[rank].attempt} is the lowest that passed and meets the row rules"


class RandomPass(Strategy):
    """One of those that pass, in an order that is drawn by the candidates' keys."""

    name = "random-pass"
    fact = "random pass"
    draws_all = True

    def ordered(self, found: Sequence[Candidate], run: pb.Run, key_of: KeyOf) -> list[Candidate]:
        """In the order that was drawn."""
        return sorted(sorted(found), key=lambda candidate: pass_rank(run, key_of(candidate)))

    def why(self, group: Group, rank: int) -> str:
        """The place in the order."""
        return f"number {rank + 1} in a random order of {len(group.eligible)} passes"


class FailuresOnly(Strategy):
    """The lowest attempt that was executed and failed."""

    name = "failures-only"
    fact = "lowest attempt that fails"
    draws_all = True
    verdicts = FAILURES

    def why(self, group: Group, rank: int) -> str:
        """The attempt's number."""
        return f"attempt {group.eligible[rank].attempt} is the lowest that failed and meets the row rules"


class Everything(Strategy):
    """Every candidate, whatever its verdict."""

    name = "everything"
    fact = "every response, whatever its verdict"
    draws_all = True
    several = True
    verdicts = EXECUTED

    def why(self, group: Group, rank: int) -> str:
        """The attempt's number."""
        return f"attempt {group.eligible[rank].attempt}: every response that meets the row rules is taken"


STRATEGIES: dict[str, Strategy] = {
    each.name: each for each in (FirstPass(), RandomPass(), FailuresOnly(), Everything())
}
"""By name."""
