"""The part of a few-shot prompt's last example that the model writes, and its stop strings."""

from __future__ import annotations

from dataclasses import dataclass

HEADING = "## Example"
"""Heading of each example in a prompt; its number follows."""


@dataclass(frozen=True)
class Section:
    """The part of an example that the model writes, and the stop strings that end it.

    Every engine matches stop strings as plain text, so each must be a string that does not occur in an item's text: the
    closing tag at the start of a line, and the full beginning of the next example. A tag in a sentence, a heading
    `## Example usage` or an element `<task>` in a snippet ends nothing. Two strings stay within the limit of four of
    endpoints with the OpenAI protocol.
    """

    name: str
    """Name of its tags."""
    begins_example: str
    """The line after an example's heading."""
    fenced: bool = False
    """Whether the section ends with a code block. The block may contain the closing tag on a line of its own, as in a
    string, so the block's closing fence is part of the stop string."""

    @property
    def closing_tag(self) -> str:
        """The tag that ends the section."""
        return f"</{self.name}>"

    def next_example(self, few_shots: int) -> str:
        """Return the beginning of the example after the item."""
        return f"\n{HEADING} {few_shots + 2}\n\n{self.begins_example}\n"

    def stop(self, few_shots: int) -> tuple[str, str]:
        """Return the stop strings of an item that follows this many examples."""
        fence = "\n```" if self.fenced else ""
        return f"{fence}\n{self.closing_tag}", self.next_example(few_shots)
