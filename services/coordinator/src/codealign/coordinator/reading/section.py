"""The part of a few-shot prompt's last example that the model writes, and the stop strings that end it."""

from __future__ import annotations

from dataclasses import dataclass

HEADING = "## Example"
"""What each example of a prompt begins with; its number follows."""


@dataclass(frozen=True)
class Section:
    """The part of an example that the model writes, and the stop strings that end it.

    A stop string is plain text that every engine looks for, so each is one that an item's own text does not hold: the
    closing tag at the start of a line, and the whole beginning of the next example. A tag in a sentence, a heading
    `## Example usage` or an element `<task>` in a snippet ends nothing. Two strings, since endpoints that speak
    OpenAI's protocol allow four.
    """

    name: str
    """Of its tags."""
    begins_example: str
    """The line that follows an example's heading."""
    fenced: bool = False
    """It ends with a code block. What it holds may then have the closing tag on a line of its own, as in a string, so
    the block's closing fence is part of the stop string."""

    @property
    def closing_tag(self) -> str:
        """What ends the section."""
        return f"</{self.name}>"

    def next_example(self, few_shots: int) -> str:
        """How the example after the item begins."""
        return f"\n{HEADING} {few_shots + 2}\n\n{self.begins_example}\n"

    def stop(self, few_shots: int) -> tuple[str, str]:
        """The stop strings of an item that follows so many examples."""
        fence = "\n```" if self.fenced else ""
        return f"{fence}\n{self.closing_tag}", self.next_example(few_shots)
