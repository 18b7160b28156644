"""What a piece of work waits for, in words: a service that is away, and since when."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Waiting:
    """Services that are away now, each with the time of the first failure in a row and the last reason."""

    _since: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    def begin(self, what: str, reason: str) -> None:
        """A call failed and will be tried again.

        Args:
            what: "the dataset service".
            reason: The error, for a person.
        """
        since, _ = self._since.get(what, (datetime.now(UTC), ""))
        self._since[what] = since, reason

    def end(self, what: str) -> None:
        """A call succeeded."""
        self._since.pop(what, None)

    @property
    def text(self) -> str:
        """Each as in "the dataset service, since 14:03:10 UTC: connection refused". Empty: nothing is waited for."""
        return "; ".join(
            f"{what}, since {since:%H:%M:%S} UTC: {reason}" for what, (since, reason) in self._since.items()
        )
