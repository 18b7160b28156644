"""A description of the unavailable services that a piece of work is waiting for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Waiting:
    """Services that are unavailable now, each with the time of its first consecutive failure and the last reason."""

    _since: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    def begin(self, what: str, reason: str) -> None:
        """Record a failed call that will be retried.

        Args:
            what: Service, such as "the dataset service".
            reason: The error, shown to users.
        """
        since, _ = self._since.get(what, (datetime.now(UTC), ""))
        self._since[what] = since, reason

    def end(self, what: str) -> None:
        """Record a successful call."""
        self._since.pop(what, None)

    @property
    def text(self) -> str:
        """Each service as in "the dataset service, since 14:03:10 UTC: connection refused", or "" if there is none."""
        return "; ".join(
            f"{what}, since {since:%H:%M:%S} UTC: {reason}" for what, (since, reason) in self._since.items()
        )
