"""What calls of an answer did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RETURNED, RAISED, TIMED_OUT = "returned", "raised", "timed out"
UNSTABLE, UNOBSERVED = "unstable", "unobserved"
KINDS = frozenset({RETURNED, RAISED, TIMED_OUT, UNSTABLE, UNOBSERVED})


@dataclass(frozen=True)
class Outcome:
    """What one call did."""

    kind: str
    """"returned", "raised", "timed out", "unstable" (another outcome when called again) or "unobserved"."""
    text: str = ""
    """The form of the returned value, the type of the exception, or why nothing was observed."""
    printed: str = ""
    """Digest of what the call printed. Empty: nothing."""
    changed: str = ""
    """The form of the arguments after the call. Empty: they are as before."""
    floats: bool = False
    """Whether the returned value contains floats, which tests should compare with a tolerance."""

    @property
    def counts(self) -> bool:
        """Whether it can agree with another outcome, or contradict it."""
        return self.kind in (RETURNED, RAISED, TIMED_OUT)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is equal for outcomes that agree."""
        return self.kind, self.text, self.printed, self.changed

    def agrees(self, other: Outcome) -> bool:
        """Return whether both count and are the same."""
        return self.counts and other.counts and self.key == other.key

    def contradicts(self, other: Outcome) -> bool:
        """Return whether both count and are not the same."""
        return self.counts and other.counts and self.key != other.key

    def __str__(self) -> str:
        """Describe it for people."""
        told = {
            RETURNED: f"returns {self.text}",
            RAISED: f"raises {self.text}",
            TIMED_OUT: "does not end",
            UNSTABLE: "differs from call to call",
            UNOBSERVED: f"was not observed ({self.text})",
        }[self.kind]
        return told + " and prints" * bool(self.printed) + " and changes its arguments" * bool(self.changed)


Outcomes = Sequence[Outcome]
"""One for each input, in the order of the inputs."""


@dataclass(frozen=True)
class Observations:
    """What an attempt did at all inputs."""

    outcomes: tuple[Outcome, ...]
    """Of its code, one for each input."""
    oracles: tuple[tuple[Outcome, ...], ...] = ()
    """Of each oracle of its tests, one for each input."""
