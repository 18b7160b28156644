"""A prompt in two parts: what many items share, and the item."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A prompt in two parts."""

    prefix: str
    suffix: str

    @property
    def text(self) -> str:
        """What the model continues."""
        return self.prefix + self.suffix
