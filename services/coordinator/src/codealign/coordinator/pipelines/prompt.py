"""A prompt in two parts: a prefix that many items share, and the item.

All items of a prefix group share the prefix exactly, so an engine with a prefix cache computes it once.
`reading.sections`, `reading.parsing` and the stop strings depend on the tags in a prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.reading.section import HEADING, Section

PROBE = FewShot("n", "s", "c", "l", "d", ("x", "y"), "i", "r", "t")
"""An example for rendering templates when only their own text matters."""


@dataclass(frozen=True)
class Prompt:
    """A prompt in two parts."""

    prefix: str
    suffix: str

    @property
    def text(self) -> str:
        """The text that the model continues."""
        return self.prefix + self.suffix


def joined(header: str, shots: Sequence[str]) -> str:
    """Return a prefix: the header and the examples, with a blank line after each."""
    return "\n".join([header, *shots]) + "\n"


def templates_sha256(texts: Iterable[str], sections: Iterable[Section]) -> str:
    """Return a hash of a pipeline's templates and of the marks in them, which every draw depends on.

    Args:
        texts: Prefixes and suffixes, rendered with fixed text.
        sections: The pipeline's sections.
    """
    marks = [mark for each in sections for mark in (each.closing_tag, each.begins_example, HEADING)]
    return hashlib.sha256("\0".join([*texts, *marks]).encode()).hexdigest()
