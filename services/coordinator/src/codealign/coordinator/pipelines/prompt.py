"""A prompt in two parts: what many items share, and the item.

All items of a prefix group share the prefix to the character, so an engine that keeps the attention state of prefixes
computes it once. The tags in a prompt are what `reading.sections`, `reading.parsing` and the stop strings look for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.reading.section import HEADING, Section

PROBE = FewShot("n", "s", "c", "l", "d", ("x", "y"), "i", "r", "t")
"""An example to show templates with, where their text alone is wanted."""


@dataclass(frozen=True)
class Prompt:
    """A prompt in two parts."""

    prefix: str
    suffix: str

    @property
    def text(self) -> str:
        """What the model continues."""
        return self.prefix + self.suffix


def joined(header: str, shots: Sequence[str]) -> str:
    """A prefix: the header and the examples, a blank line after each."""
    return "\n".join([header, *shots]) + "\n"


def templates_sha256(texts: Iterable[str], sections: Iterable[Section]) -> str:
    """A hash of a pipeline's templates and of the marks in them: part of what every draw depends on.

    Args:
        texts: Prefixes and suffixes, filled in with fixed text.
        sections: Those of the pipeline.
    """
    marks = [mark for each in sections for mark in (each.closing_tag, each.begins_example, HEADING)]
    return hashlib.sha256("\0".join([*texts, *marks]).encode()).hexdigest()
