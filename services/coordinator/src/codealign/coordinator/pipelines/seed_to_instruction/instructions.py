"""Seed → instruction: a task inspired by the seed, with the properties drawn for it."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.prompt import joined
from codealign.coordinator.pipelines.selfcodealign.instructions import Instructions
from codealign.coordinator.pipelines.selfcodealign.seeds import source_of
from codealign.coordinator.pipelines.stage import Asked, Item
from codealign.coordinator.reading.section import HEADING, Section

SECTION = Section("task", "<code>")
_HEADER = """\
# From code to tasks

Each example shows a Python function, the property that a coding task is to have and, between <task> tags, a task with
that property which the function inspired. A task stands by itself and does not mention that function: it names what to
write and its signature, says what goes in and comes out, and settles the edge cases. A function is one function, a
class one class with its methods, a program a few cooperating parts with an entry function. It is easy, medium or hard
for a trained programmer.
"""


class InstructionsFromSeeds(Instructions):
    """A task for each seed: parsed, drawn and dropped as in selfcodealign, but without concepts."""

    parent = "seeds"
    title = "Seed → instruction"
    description = "The model writes a task that the seed inspires."
    section = SECTION

    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the header and the examples."""
        return prefix(shots)

    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the seed and the properties."""
        drawn, code = asked.properties, source_of(item.record.seed)
        return suffix(len(asked.shots) + 1, code, drawn["category"], drawn["language"], drawn["difficulty"])


def prefix(examples: Sequence[FewShot]) -> str:
    """Return the part that all items with the same examples share."""
    shots = [
        suffix(number, shot.seed, shot.category, shot.language, shot.difficulty) + f"{shot.instruction}\n</task>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return joined(_HEADER, shots)


def suffix(number: int, code: str, category: str, language: str, difficulty: str) -> str:
    """Return the item's part; the completion is the task."""
    return (
        f"{HEADING} {number}\n\n<code>\n{code}\n</code>\n<property>\ncategory: {category}\nlanguage: {language}\n"
        f"difficulty: {difficulty}\n</property>\n<task>\n"
    )
