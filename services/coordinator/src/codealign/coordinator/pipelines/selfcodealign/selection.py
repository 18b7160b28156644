"""Selection: one response per instruction becomes a row, and no row resembles another."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.pipelines.stage import (
    CONTESTED,
    CONTRADICTED,
    NOT_CHOSEN,
    TARGET_REACHED,
    Item,
    Selection,
    Settings,
)
from codealign.coordinator.rules import duplicates
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.rules.rows import ROW_RULES, can_carry_tests, row_drop, with_tests
from codealign.coordinator.rules.seeds import Drop


class RowSelection(Selection):
    """A row from each chosen response and its instruction, which sometimes includes the tests."""

    name = "selection"
    parent = "execution"
    title = "Selection"
    description = "One response to each task is chosen; no two rows are duplicates."
    VERSION = 1
    reasons = {
        **ROW_RULES,
        **duplicates.RULES,
        NOT_CHOSEN: "another response to the same task was chosen",
        CONTRADICTED: "other attempts agree on something else",
        CONTESTED: "the attempts contradict each other",
        TARGET_REACHED: "the run had as many rows as wanted",
    }

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:  # noqa: ARG002
        """Return the first rule for rows that drops the response."""
        return row_drop(item.text, item.record.response.code, benchmarks)

    def compared(self, item: Item, settings: Settings) -> Row:  # noqa: ARG002
        """Return the instruction, the answer and its code."""
        response = item.record.response
        return Row(item.record.id, _instruction(item).text, response.answer, response.code)

    def example(self, item: Item, settings: Settings, parent_key: str) -> pb.Example:
        """Return the row; whether its instruction includes the tests is drawn from the instruction's key."""
        instruction, response = _instruction(item), item.record.response
        chance = records.seed_for(settings.run.seed, "tests-in-instruction", parent_key) / 2**63
        wanted = chance < settings.run.selection.tests_in_instruction
        carry = wanted and can_carry_tests(instruction.text, response.tests)
        return pb.Example(
            instruction=with_tests(instruction.text, response.tests) if carry else instruction.text,
            response=response.answer,
            tests=response.tests,
            category=instruction.category,
            difficulty=instruction.difficulty,
            concepts=instruction.concepts,
            tests_in_instruction=carry,
        )


def instruction_of(item: Item) -> pb.Instruction | None:
    """Return the answered task: the response's own or the last one on the line, as stages may rewrite tasks."""
    if own := item.record.response.instruction:
        return pb.Instruction(text=own, language="Python")
    found = [record.instruction for record in item.line.values() if record.HasField("instruction")]
    return found[-1] if found else None


def _instruction(item: Item) -> pb.Instruction:
    found = instruction_of(item)
    assert found is not None, "the pipeline has a stage that makes instructions"
    return found
