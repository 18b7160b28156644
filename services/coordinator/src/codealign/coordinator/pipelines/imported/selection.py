"""Selection of rows among imported responses, whose text stays as it was published."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection, instruction_of
from codealign.coordinator.pipelines.stage import Item, Settings
from codealign.coordinator.rules import duplicates
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.rows import INSTRUCTION_RULES, ROW_RULES, row_drop
from codealign.coordinator.rules.seeds import Drop

NO_INSTRUCTION = "imported.no-instruction"
_BENCHMARK = "instruction.benchmark-text"


class ImportedSelection(RowSelection):
    """A row from each imported response that meets the rules and resembles no other.

    The limit on an instruction's length does not apply, and no tests are appended to it.
    """

    description = "No two rows are duplicates, and none contains a benchmark's text."
    VERSION = RowSelection.VERSION + 1
    reasons = {
        NO_INSTRUCTION: "the response answers no instruction",
        _BENCHMARK: INSTRUCTION_RULES[_BENCHMARK],
        **ROW_RULES,
        **duplicates.RULES,
    }

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:  # noqa: ARG002
        """Return the first rule that drops the instruction or the response."""
        instruction, response = instruction_of(item), item.record.response
        if instruction is None:
            return Drop(NO_INSTRUCTION, "import the column with the task as well")
        if task := benchmarks.find(instruction.text):
            return Drop(_BENCHMARK, f"contains the text of {task}")
        return row_drop(f"{response.answer}\n{response.tests}", response.code, benchmarks)

    def example(self, item: Item, settings: Settings, parent_key: str) -> pb.Example:  # noqa: ARG002
        """Return the row, with its Import and the licence of the response or, if it has none, of the instruction."""
        instruction, response = instruction_of(item), item.record.response
        assert instruction is not None
        return pb.Example(
            instruction=instruction.text,
            response=response.answer,
            tests=response.tests,
            category=instruction.category,
            difficulty=instruction.difficulty,
            concepts=instruction.concepts,
            license=response.license or instruction.license,
            imported_from=response.imported_from,
        )
