"""Selection: every pair becomes a row unless snippet, task or answer equal another's."""

from __future__ import annotations

import re

from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection
from codealign.coordinator.pipelines.snippets import snippet
from codealign.coordinator.pipelines.stage import Item, Settings
from codealign.coordinator.reading.fences import blocks
from codealign.coordinator.rules import duplicates
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.rules.seeds import Drop

_COPIED = "row.copied-code"
_SPACE = re.compile(r"\s+")


class PairSelection(RowSelection):
    """A row from each pair of task and answer."""

    parent = "pairs"
    description = "Each task with its answer becomes a row; no two rows have the same snippet, task or answer."
    duplicate_rules = (duplicates.SNIPPET, "dedup.instruction", "dedup.response")
    reasons = {
        **{rule: text for rule, text in RowSelection.reasons.items() if rule not in duplicates.RULES},
        **{rule: duplicates.ALL_RULES[rule] for rule in duplicate_rules},
        _COPIED: "the answer repeats code of its task",
    }

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """Return the first rule for rows that drops the pair, also if a block of the answer equals one of the task."""
        task, answer = (_code(text) for text in (item.record.response.instruction, item.record.response.answer))
        if task & answer:
            return Drop(_COPIED, "a code block of the answer equals one of the task, white space aside")
        return super().drop(item, settings, benchmarks)

    def compared(self, item: Item, settings: Settings) -> Row:
        """Return the task, the answer, its code and the snippet."""
        seed, response = item.line["seeds"], item.record.response
        code = snippet(seed.seed.code, settings.number(seed.id))
        return Row(item.record.id, response.instruction, response.answer, response.code, code)


def _code(text: str) -> set[str]:
    """Return the code blocks of a text without white space."""
    return {_SPACE.sub("", block.content) for block in blocks(text)} - {""}
