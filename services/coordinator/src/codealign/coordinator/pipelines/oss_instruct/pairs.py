"""Snippet → task and answer, in one completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.prompt import joined
from codealign.coordinator.pipelines.snippets import MAX_LINES, snippet, snippet_of
from codealign.coordinator.pipelines.stage import READING_REASONS, Asked, Item, Settings, Writing
from codealign.coordinator.reading import parsing
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.reading.section import HEADING, Section
from codealign.coordinator.rules import marks
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.marks import marks_drop
from codealign.coordinator.rules.rows import INSTRUCTION_RULES, instruction_drop
from codealign.coordinator.rules.seeds import Drop

SECTION = Section("answer", "<code>", fenced=True)
_HEADER = """\
# From snippets to tasks with answers

Each example shows some consecutive lines of a Python file, which may begin and end anywhere. Between <task> tags
follows a coding task that they inspired, and between <answer> tags a correct answer with complete Python code. The task
stands by itself: it does not mention the lines, and names everything that a solution has to know.
"""
_OWN_REASONS = ("no-task-end", "no-answer-section", "no-code-block")


class Pairs(Writing):
    """A task with its answer for each snippet."""

    name = "pairs"
    parent = "seeds"
    title = "Snippet → task and answer"
    description = "The model writes a task that some lines of each seed inspire, and answers it in the same completion."
    makes = pb.KIND_RESPONSE
    VERSION = 1
    reasons = {
        **READING_REASONS,
        **{reason: REASONS[reason] for reason in _OWN_REASONS},
        **INSTRUCTION_RULES,
        **marks.RULES,
    }
    section = SECTION
    # Greedy, as published. There the model is a chat model, which needs no examples.
    defaults = pb.StageSettings(max_tokens=1536, few_shots=3, attempts=1, temperature=0.0)

    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the header and the examples."""
        return prefix(shots)

    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the snippet drawn for the seed."""
        return suffix(len(asked.shots) + 1, snippet(item.record.seed.code, asked.number))

    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:  # noqa: ARG002
        """Return one answer with its code and its task."""
        parsed = parsing.pair(text)
        if isinstance(parsed, Rejected):
            return parsed
        return [pb.Response(instruction=parsed.task, answer=parsed.answer, code=parsed.code)]

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        """Return the first rule for instructions that drops the task."""
        task, words = item.record.response.instruction, settings.run.selection.instruction_words
        return instruction_drop(task, max_words=words, benchmarks=benchmarks) or marks_drop(task)

    def draw_settings(self, settings: Settings) -> Mapping[str, object]:  # noqa: ARG002
        """Return the limit of a snippet's lines."""
        return {"snippet_lines": MAX_LINES}


def prefix(examples: Sequence[FewShot]) -> str:
    """Return the part that all items with the same examples share."""
    shots = [
        f"{suffix(number, snippet_of(shot))}{shot.instruction}\n</task>\n<answer>\n{shot.response}\n</answer>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return joined(_HEADER, shots)


def suffix(number: int, code: str) -> str:
    """Return the item's part; the completion is the task, then the answer."""
    return f"{HEADING} {number}\n\n<code>\n{code}\n</code>\n<task>\n"
