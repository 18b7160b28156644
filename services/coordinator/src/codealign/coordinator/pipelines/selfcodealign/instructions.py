"""Concepts → instruction: a task that needs these concepts and has the properties drawn for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.prompt import joined
from codealign.coordinator.pipelines.stage import READING_REASONS, Asked, Item, Settings, Writing
from codealign.coordinator.reading import parsing
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.reading.section import HEADING, Section
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.rows import INSTRUCTION_RULES, instruction_drop
from codealign.coordinator.rules.seeds import Drop

SECTION = Section("task", "<property>")
_HEADER = """\
# From concepts to tasks

Each example shows the property that a coding task is to have and, between <task> tags, a task with that property.
A task stands by itself: it names what to write and its signature, says what goes in and comes out, and settles the
edge cases. A function is one function, a class one class with its methods, a program a few cooperating parts with
an entry function. It is easy, medium or hard for a trained programmer.
"""


class Instructions(Writing):
    """A task for each set of concepts."""

    name = "instructions"
    parent = "concepts"
    title = "Concepts → instruction"
    description = "The model writes a task that needs these concepts."
    makes = pb.KIND_INSTRUCTION
    VERSION = 1
    reasons = {**READING_REASONS, **INSTRUCTION_RULES}
    section = SECTION
    # The last property has a single value, so a run's setting for it does not change the draws of the others.
    properties = {
        "category": ("function", "class", "program"),
        "difficulty": ("easy", "medium", "hard"),
        "language": ("Python",),
    }
    # The paper's values; functions are drawn twice as often as the others.
    defaults = pb.StageSettings(
        max_tokens=256,
        few_shots=8,
        attempts=1,
        properties=[pb.PropertyDraw(name="category", values=["function", "function", "class", "program"])],
    )

    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the header and the examples."""
        return prefix(shots)

    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the properties and the concepts."""
        drawn, concepts = asked.properties, item.record.concept_set.concepts
        return suffix(len(asked.shots) + 1, drawn["category"], drawn["language"], drawn["difficulty"], concepts)

    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:
        """Return one task, with the properties that the prompt requested."""
        task = parsing.instruction(text, cut_off=False)
        if isinstance(task, Rejected):
            return task
        return [pb.Instruction(text=task, concepts=item.record.concept_set.concepts, **asked.properties)]

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """Return the first rule for instructions that drops the task."""
        words = settings.run.selection.instruction_words
        return instruction_drop(item.record.instruction.text, max_words=words, benchmarks=benchmarks)

    def draw_settings(self, settings: Settings) -> Mapping[str, object]:
        """Return the values that properties are drawn from."""
        return {
            "categories": settings.property_values(self.name, "category"),
            "difficulties": settings.property_values(self.name, "difficulty"),
        }

    def preferred_difficulties(self, settings: Settings) -> Collection[str]:
        """Return the drawn difficulties: examples with these come first."""
        return settings.property_values(self.name, "difficulty")


def prefix(examples: Sequence[FewShot]) -> str:
    """Return the part that all items with the same examples share."""
    shots = [
        suffix(number, shot.category, shot.language, shot.difficulty, shot.concepts) + f"{shot.instruction}\n</task>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return joined(_HEADER, shots)


def suffix(number: int, category: str, language: str, difficulty: str, concepts: Sequence[str]) -> str:
    """Return the item's part; the completion is the task."""
    return (
        f"{HEADING} {number}\n\n<property>\ncategory: {category}\nlanguage: {language}\ndifficulty: {difficulty}\n"
        f"concepts: {', '.join(concepts)}\n</property>\n<task>\n"
    )
