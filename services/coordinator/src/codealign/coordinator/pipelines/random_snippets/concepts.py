"""Snippet → concepts: what the lines of a random snippet are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.prompt import joined
from codealign.coordinator.pipelines.selfcodealign.concepts import SECTION, Concepts, suffix
from codealign.coordinator.pipelines.snippets import MAX_LINES, snippet, snippet_of
from codealign.coordinator.pipelines.stage import Asked, Item, Settings

__all__ = ["SECTION", "SnippetConcepts", "prefix", "suffix"]

_HEADER = """\
# From snippets to concepts

Each example shows some consecutive lines of a Python file, which may begin and end anywhere. Between <concepts> tags
follow the programming concepts that someone must understand to write such code: two to five short, general terms,
separated by commas.
"""


class SnippetConcepts(Concepts):
    """The concepts that a few lines of a seed are about; parsed as in selfcodealign."""

    title = "Snippet → concepts"
    description = "The model names the programming concepts that some lines of each seed are about."

    def prefix(self, shots: Sequence[FewShot]) -> str:
        """Return the header and the examples."""
        return prefix(shots)

    def suffix(self, item: Item, asked: Asked) -> str:
        """Return the snippet drawn for the seed."""
        return suffix(len(asked.shots) + 1, snippet(item.record.seed.code, asked.number))

    def draw_settings(self, settings: Settings) -> Mapping[str, object]:  # noqa: ARG002
        """Return the limit of a snippet's lines."""
        return {"snippet_lines": MAX_LINES}


def prefix(examples: Sequence[FewShot]) -> str:
    """Return the part that all items with the same examples share."""
    shots = [
        f"{suffix(number, snippet_of(shot))}{', '.join(shot.concepts)}\n</concepts>\n"
        for number, shot in enumerate(examples, 1)
    ]
    return joined(_HEADER, shots)
