"""Given instructions: a pipeline begins with the tasks of another run, or with imported ones.

Imported tasks have a licence, which their rows carry on.
"""

from __future__ import annotations

from collections.abc import Mapping

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection, instruction_of
from codealign.coordinator.pipelines.stage import Item, Seeds, Settings
from codealign.coordinator.rules import duplicates, marks
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.marks import marks_drop
from codealign.coordinator.rules.rows import INSTRUCTION_RULES, instruction_drop
from codealign.coordinator.rules.seeds import Drop


class GivenInstructions(Seeds):
    """The instructions of the run's collection."""

    name = "seeds"
    title = "Given instructions"
    description = "The tasks of another run, or imported ones, are filtered: no two are alike."
    plural = "instructions"
    advice = "name a run whose instructions are to be used (`codealign ls`), or a collection with instructions"
    makes = pb.KIND_INSTRUCTION
    VERSION = 1
    reasons = {
        "instruction.empty": "contains no text",
        **INSTRUCTION_RULES,
        **marks.RULES,
        **duplicates.SEED_RULES,
    }
    threshold = duplicates.INSTRUCTION_THRESHOLD

    def drop(self, record: pb.Record, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """Return the first rule for instructions that drops the task."""
        text = record.instruction.text
        if not text.strip():
            return Drop("instruction.empty", "nothing but white space")
        words = settings.run.selection.instruction_words
        return instruction_drop(text, max_words=words, benchmarks=benchmarks) or marks_drop(text)

    def rule_settings(self, settings: Settings) -> Mapping[str, object]:
        """Return the limit of an instruction's words."""
        return {"instruction_words": settings.run.selection.instruction_words}

    def text(self, record: pb.Record) -> str:
        """Return the task."""
        return record.instruction.text


class GivenRowSelection(RowSelection):
    """Rows under the licence of the instructions that they answer."""

    VERSION = RowSelection.VERSION + 1

    def example(self, item: Item, settings: Settings, parent_key: str) -> pb.Example:
        """Return the row with its instruction's licence."""
        row, instruction = super().example(item, settings, parent_key), instruction_of(item)
        row.license = instruction.license if instruction else ""
        return row
