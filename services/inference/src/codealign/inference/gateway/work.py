"""What the gateway dispatches: jobs, their samples, and calls to workers. No input or output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

from codealign.common.errors import CodeAlignError

RETRY_SECONDS = 5.0
"""Retry delay for callers that no worker could answer, unless something better is known."""
_FAULT_LIMIT = 300
"""Characters of a fault's description, which may be a worker's text."""


class ModelKey(NamedTuple):
    """A model as workers must have it. Workers with another revision are another model."""

    name: str
    revision: str


@dataclasses.dataclass(eq=False, slots=True)
class Draw:
    """A sample that is not answered yet."""

    job: Job
    attempt: int
    waiting_since: float
    faults: list[str] = dataclasses.field(default_factory=list)
    """Description of each failed attempt, with the worker's name."""
    failed_at: set[str] = dataclasses.field(default_factory=set)
    """Workers of the failed attempts."""

    def failed(self, worker: str, reason: str) -> None:
        """Record a failed attempt."""
        self.faults.append(f"{worker}: {reason[:_FAULT_LIMIT]}")
        self.failed_at.add(worker)

    def evidence(self) -> str:
        """Return which workers failed it and why, as an error message."""
        faults = "; ".join(f"{number}. {fault}" for number, fault in enumerate(self.faults, 1))
        return f"no worker answered sample {self.attempt} in {len(self.faults)} attempts: {faults}"


@dataclasses.dataclass(eq=False, slots=True)
class Job:
    """One Generate call."""

    key: ModelKey
    caller: str
    """Identity for turn-taking."""
    prefix_key: str
    fail: Callable[[CodeAlignError], None]
    """Called at most once, when the job cannot be completed."""
    draws: dict[int, Draw] = dataclasses.field(default_factory=dict)
    """Unanswered samples by attempt number."""
    calls: dict[Call, None] = dataclasses.field(default_factory=dict)
    """Calls in progress for this job, in the order in which they began."""
    is_over: bool = False
    """Failed, withdrawn, or answered."""

    def add(self, attempts: Iterable[int], now: float) -> None:
        """Set the samples to draw."""
        self.draws = {attempt: Draw(self, attempt, now) for attempt in attempts}


@dataclasses.dataclass(eq=False, slots=True)
class Call:
    """Samples of one job that one worker has been asked for together."""

    job: Job
    worker: str
    sent: float
    owed: dict[int, Draw]
    """Samples that the worker has not answered. Empty once the call is over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """A worker did not answer as it must. Its samples are sent to another one, and the attempt counts."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Returned:
    """A worker did not take the samples, which is no fault: it is full or stopping, or has unloaded the model."""

    seconds: float = 0.0
    """How long the worker gets no more samples of this model. 0: until it reports the model again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The request itself is at fault: every worker would give this answer."""

    error: CodeAlignError


Ending = Fault | Returned | Refused | None
"""How a call ended. None: as announced by the worker."""
