"""What a prompt asks for, inferred from its final tag, its stop strings and its examples."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codealign.inference.engines.base import GenerationRequest
from codealign.inference.engines.simulated.profile import ANSWER, LIST, PROSE

_OPENING = re.compile(r"<(\w+)>\s*\Z")
_CLOSING = re.compile(r"</(\w+)>\s*\Z")
_HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
_TERM_WORDS = 6


@dataclass(frozen=True, slots=True)
class Wanted:
    """The section of text that a prompt asks for."""

    kind: str
    """One of `profile.KINDS`."""
    opened: str
    """The tag that the prompt ends with, or empty."""
    closed: str
    """The tag that ends the section. If it differs from `opened`, a second part is requested too: the tests of an
    answer, or the answer to a task."""
    subject: str
    """The prompt's last example, which the section is about."""
    with_task: bool = False
    """Whether an answer's task is requested before it, between `opened` and `closed`."""


def read(request: GenerationRequest) -> Wanted:
    """Infer what is requested. A prompt that does not end with a tag requests an answer without tests."""
    prompt = text_of(request)
    last = None
    for last in _HEADING.finditer(prompt):  # noqa: B007 (the last match is needed)
        pass
    subject = prompt[last.end() :] if last else prompt
    opened = _OPENING.search(prompt)
    closing = next((found for stop in request.sampling.stop if (found := _CLOSING.search(stop))), None)
    if opened is None:
        return Wanted(ANSWER, "", "", subject)
    closed = closing.group(1) if closing else opened.group(1)
    example = re.search(rf"<{closed}>\n(.*?)\n?</{closed}>", prompt, re.DOTALL)
    if closed != opened.group(1) or (closing and "```" in closing.string):
        # Tests are a code block alone; an answer begins with a sentence.
        with_task = closed != opened.group(1) and example is not None and not example.group(1).startswith("```")
        return Wanted(ANSWER, opened.group(1), closed, subject, with_task)
    kind = LIST if example and is_list(example.group(1)) else PROSE
    return Wanted(kind, opened.group(1), closed, subject)


def text_of(request: GenerationRequest) -> str:
    """Return the prompt, or a conversation's last message."""
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content


def is_list(text: str) -> bool:
    """Return whether the text is a single line of short, comma-separated terms."""
    line = text.strip()
    terms = line.split(",")
    short = len(terms) > 1 and all(len(term.split()) <= _TERM_WORDS for term in terms)
    return short and "\n" not in line and not line.endswith(".")
