"""Instruction → response: an answer, and tests that pass only if it does what the task says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.prompt import joined
from codealign.coordinator.pipelines.stage import READING_REASONS, Asked, Item, Settings, Writing
from codealign.coordinator.reading import parsing
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.reading.section import HEADING, Section

SECTION = Section("tests", "<task>", fenced=True)
_HEADER = """\
# Tasks, answers and tests

Each example shows a coding task, an answer with its reasoning and complete code, and then, between <tests> tags,
assertions that run after that code and pass only if the answer does what the task says.
"""
_OWN_REASONS = ("no-answer-end", "no-tests-section", "no-code-block", "no-tests-block")


class Responses(Writing):
    """Answers to each task, with tests."""

    name = "responses"
    parent = "instructions"
    title = "Instruction → response"
    description = "The model answers the task and writes tests for its answer, until one answer passes."
    makes = pb.KIND_RESPONSE
    VERSION = 1
    reasons = {**READING_REASONS, **{reason: REASONS[reason] for reason in _OWN_REASONS}}
    section = SECTION
    # The paper's values.
    defaults = pb.StageSettings(max_tokens=1024, few_shots=1, attempts=10)

    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the header and the examples."""
        return prefix(shots)

    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the task."""
        return suffix(len(asked.shots) + 1, item.record.instruction.text)

    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:  # noqa: ARG002
        """Return one answer with its code and tests."""
        parsed = parsing.response(text, cut_off=False)
        if isinstance(parsed, Rejected):
            return parsed
        return [pb.Response(answer=parsed.answer, code=parsed.code, tests=parsed.tests)]

    def draw_settings(self, settings: Settings) -> Mapping[str, object]:
        """Return the difficulties of the tasks, which determine the order of the examples."""
        return {"difficulties": settings.drawn_from("difficulty")}

    def preferred_difficulties(self, settings: Settings) -> Collection[str]:
        """Return the difficulties of the tasks: examples with these come first."""
        return settings.drawn_from("difficulty")


def prefix(examples: Sequence[FewShot]) -> str:
    """Return the part that all items with the same examples share."""
    shots = [
        f"{suffix(number, shot.instruction)}{shot.response}\n</answer>\n"
        f"<tests>\n```python\n{shot.tests}\n```\n</tests>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return joined(_HEADER, shots)


def suffix(number: int, instruction: str) -> str:
    """Return the item's part; the completion is the answer, then the tests."""
    return f"{HEADING} {number}\n\n<task>\n{instruction}\n</task>\n<answer>\n"
