"""Seed → concepts: what someone must understand to write the seed."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.prompt import joined
from codealign.coordinator.pipelines.selfcodealign.seeds import source_of
from codealign.coordinator.pipelines.stage import READING_REASONS, Asked, Item, Writing
from codealign.coordinator.reading import parsing
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.reading.section import HEADING, Section

SECTION = Section("concepts", "<code>")
_HEADER = """\
# From code to concepts

Each example shows a Python function and, between <concepts> tags, the programming concepts that someone must
understand to write it: two to five short, general terms, separated by commas.
"""


class Concepts(Writing):
    """The concepts that a seed is about."""

    name = "concepts"
    parent = "seeds"
    title = "Seed → concepts"
    description = "The model names the programming concepts that each seed is about."
    makes = pb.KIND_CONCEPT_SET
    VERSION = 1
    reasons = {**READING_REASONS, "no-concepts": REASONS["no-concepts"]}
    section = SECTION
    # The paper's values.
    defaults = pb.StageSettings(max_tokens=128, few_shots=8, attempts=1)

    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the header and the examples."""
        return prefix(shots)

    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the seed."""
        return suffix(len(asked.shots) + 1, source_of(item.record.seed))

    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:  # noqa: ARG002
        """Return one set of terms."""
        terms = parsing.concepts(text, cut_off=False)
        return terms if isinstance(terms, Rejected) else [pb.ConceptSet(concepts=terms)]


def prefix(examples: Sequence[FewShot]) -> str:
    """Return the part that all items with the same examples share."""
    shots = [
        f"{suffix(number, shot.seed)}{', '.join(shot.concepts)}\n</concepts>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return joined(_HEADER, shots)


def suffix(number: int, code: str) -> str:
    """Return the item's part; the completion is the comma-separated list."""
    return f"{HEADING} {number}\n\n<code>\n{code}\n</code>\n<concepts>\n"
