"""Strategies for selecting candidates as rows: one class for each value of SelectionSettings.strategy.

If nothing is executed, every candidate counts as a pass.
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
"""All verdicts on a program that the sandbox accepted."""

KeyOf = Callable[[Candidate], str]


class Strategy(ABC):
    """A strategy for selecting among the candidates of a group."""

    name: ClassVar[str]
    fact: ClassVar[str]
    """Description for a version's card."""
    unexecuted_fact: ClassVar[str]
    """The same for a version of a pipeline that executes nothing."""
    draws_all: ClassVar[bool] = False
    """Whether all attempts are drawn before selecting. Otherwise drawing stops after the first eligible candidate."""
    compares: ClassVar[bool] = False
    """Whether the attempts at an instruction are compared with each other. Drawing stops when they agree enough."""
    several: ClassVar[bool] = False
    """Whether every eligible candidate of a group becomes a row, rather than one."""
    verdicts: ClassVar[Sequence[sb.Verdict.ValueType]] = (sb.VERDICT_PASSED,)
    """Verdicts that a candidate may have."""

    def takes(self, verdict: sb.Verdict.ValueType | None) -> bool:
        """Return whether a candidate with this verdict (None: nothing is executed) may become a row."""
        return verdict is None or verdict in self.verdicts

    def ordered(self, found: Sequence[Candidate], run: pb.Run, key_of: KeyOf) -> list[Candidate]:  # noqa: ARG002
        """Return the eligible candidates of a round in order of preference."""
        return sorted(found)

    @abstractmethod
    def why(self, group: Group, rank: int) -> str:
        """Return a description of why the candidate of this rank is chosen."""


class FirstPass(Strategy):
    """The lowest passing attempt; nothing is drawn after it."""

    name = "first-pass"
    fact = "lowest attempt that passes"
    unexecuted_fact = "lowest attempt"

    def why(self, group: Group, rank: int) -> str:
        """Return a description with the attempt's number."""
        candidate = group.eligible[rank]
        passed = "passed and " if candidate.executed else ""
        return f"attempt {candidate.attempt} is the lowest that {passed}meets the row rules"


class RandomPass(Strategy):
    """One passing candidate, in a random order derived from the candidates' keys."""

    name = "random-pass"
    fact = "random pass"
    unexecuted_fact = "random response"
    draws_all = True

    def ordered(self, found: Sequence[Candidate], run: pb.Run, key_of: KeyOf) -> list[Candidate]:
        """Return the candidates in the random order."""
        return sorted(sorted(found), key=lambda candidate: pass_rank(run, key_of(candidate)))

    def why(self, group: Group, rank: int) -> str:
        """Return a description with the rank in the random order."""
        what = "passes" if group.eligible[rank].executed else "responses"
        return f"number {rank + 1} in a random order of {len(group.eligible)} {what}"


class RandomResponse(RandomPass):
    """One executed candidate whatever its verdict, in the same random order."""

    name = "random-response"
    fact = "random response, whatever its verdict"
    verdicts = EXECUTED

    def why(self, group: Group, rank: int) -> str:
        """Return a description with the rank in the random order."""
        what = "executed responses" if group.eligible[rank].executed else "responses"
        return f"number {rank + 1} in a random order of {len(group.eligible)} {what}"


class FailuresOnly(Strategy):
    """The lowest attempt that was executed and failed. Refused for pipelines that execute nothing."""

    name = "failures-only"
    fact = "lowest attempt that fails"
    unexecuted_fact = ""
    draws_all = True
    verdicts = FAILURES

    def why(self, group: Group, rank: int) -> str:
        """Return a description with the attempt's number."""
        return f"attempt {group.eligible[rank].attempt} is the lowest that failed and meets the row rules"


class Everything(Strategy):
    """Every candidate, whatever its verdict."""

    name = "everything"
    fact = "every response, whatever its verdict"
    unexecuted_fact = "every response"
    draws_all = True
    several = True
    verdicts = EXECUTED

    def why(self, group: Group, rank: int) -> str:
        """Return a description with the attempt's number."""
        return f"attempt {group.eligible[rank].attempt}: every response that meets the row rules is taken"


class Agreement(Strategy):
    """The best passing answer of those that do the same, if what these do is likely right."""

    name = "agreement"
    fact = "passing answer that most attempts agree with"
    unexecuted_fact = "lowest attempt"
    compares = True

    def why(self, group: Group, rank: int) -> str:
        """Return a description with the attempt's number."""
        candidate = group.eligible[rank]
        if not candidate.executed:
            return f"attempt {candidate.attempt} is the lowest that meets the row rules"
        return f"attempt {candidate.attempt} is number {rank + 1} of the passes that most attempts agree with"


STRATEGIES: dict[str, Strategy] = {
    each.name: each for each in (FirstPass(), RandomPass(), RandomResponse(), FailuresOnly(), Everything(), Agreement())
}
"""All strategies by name."""
