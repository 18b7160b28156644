"""Instruction → harder instruction: the same task, made harder by the method drawn for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.prompt import joined
from codealign.coordinator.pipelines.stage import READING_REASONS, Asked, Item, Settings, Writing
from codealign.coordinator.reading import parsing
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.reading.section import HEADING, Section
from codealign.coordinator.rules import marks
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.marks import marks_drop
from codealign.coordinator.rules.rows import INSTRUCTION_RULES, instruction_drop
from codealign.coordinator.rules.seeds import Drop

SECTION = Section("harder", "<task>")
METHODS: Mapping[str, str] = {
    "constraints": "Add a few constraints or requirements that the solution has to meet.",
    "rarer-requirement": "Replace a common requirement by a rarer and more specific one.",
    "reasoning-steps": "Make more steps of reasoning necessary before the task is solved.",
    "misleading-code": "Show a piece of code that looks useful but contains a mistake, as a misleading hint.",
    "complexity": "Demand a better time or space complexity.",
}
"""The methods of making a task harder (WizardCoder's five), and how a prompt describes them."""
_HEADER = """\
# Harder tasks

Each example shows a coding task, a method of making it a little harder and, between <harder> tags, the task after that
change. The harder task is complete: it repeats what still holds, can be solved, and does not mention the original.
"""
_SAME = "instruction.not-evolved"
_SPACE = re.compile(r"\s+")


class Evolution(Writing):
    """One round: each task becomes a harder one.

    Args:
        number: Number of the round, from 1.
    """

    description = "The model makes each task harder, by a method drawn for it."
    makes = pb.KIND_INSTRUCTION
    VERSION = 2
    reasons = {
        **READING_REASONS,
        _SAME: "equals the task that it was to make harder",
        **INSTRUCTION_RULES,
        **marks.RULES,
    }
    section = SECTION
    properties = {"method": tuple(METHODS)}
    defaults = pb.StageSettings(max_tokens=512, few_shots=5, attempts=1)

    def __init__(self, number: int) -> None:
        super().__init__(parent=f"evolution-{number - 1}" if number > 1 else "seeds")
        self.name = f"evolution-{number}"
        self.title = f"Instruction → harder instruction ({number})"

    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the header and the examples."""
        return prefix(shots)

    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the task and the method."""
        return suffix(len(asked.shots) + 1, item.record.instruction.text, asked.properties["method"])

    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:  # noqa: ARG002
        """Return one task, with the properties and the licence of the task that it was made from."""
        task = parsing.instruction(text, cut_off=False)
        if isinstance(task, Rejected):
            return task
        given = item.record.instruction
        return [
            pb.Instruction(
                text=task,
                category=given.category,
                language=given.language,
                difficulty=given.difficulty,
                concepts=given.concepts,
                license=given.license,
            )
        ]

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """Return the first rule that drops the task: it is no harder one, or a rule for instructions."""
        task = item.record.instruction.text
        if _bare(task) == _bare(item.line[self.parent].instruction.text):
            return Drop(_SAME, "equal, white space and case aside")
        words = settings.run.selection.instruction_words
        return instruction_drop(task, max_words=words, benchmarks=benchmarks) or marks_drop(task)


def _bare(text: str) -> str:
    return _SPACE.sub("", text).casefold()


def prefix(examples: Sequence[FewShot]) -> str:
    """Return the part that all items with the same examples share."""
    shots = [
        f"{suffix(number, shot.seed, shot.method)}{shot.instruction}\n</harder>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return joined(_HEADER, shots)


def suffix(number: int, task: str, method: str) -> str:
    """Return the item's part; the completion is the harder task."""
    return f"{HEADING} {number}\n\n<task>\n{task}\n</task>\n<method>\n{METHODS[method]}\n</method>\n<harder>\n"
