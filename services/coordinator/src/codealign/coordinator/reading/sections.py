"""Detection of a section's end in a completion.

Engines match stop strings without knowing the text. Their meaning is decided here, from the text with the stop string
restored: a closing tag ends the section only if it is the section's own, and a text that ended anywhere else before its
closing tag was cut. A text that was cut is never treated as complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.reading.section import Section

READING = 4
"""Incremented whenever completions are parsed differently, here or in `parsing`. Part of each generating stage's
configuration, so that records of an older version are not taken for those of a newer one."""

_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_LIST_MARKER = re.compile(r"[-*+>]|\(?\w{1,3}[.)]")
_VERBATIM = re.compile(r"<(pre|xmp|samp)(?:\s[^<>]*)?>(?!.*</\1>)", re.IGNORECASE)
"""HTML elements with verbatim content. Each ends at a line that ends with its end tag."""
_SENTENCE_ENDS = ".!?:;)]}`'\"|"
_UNANSWERED = {inf.FINISH_REASON_CONTENT_FILTER: "content-filter", inf.FINISH_REASON_TOOL_CALL: "tool-call"}


def read(completion: inf.Completion, section: Section, few_shots: int) -> str | Rejected:
    """Return the complete section, or why it is missing. Prose excludes its closing tag, code includes it.

    If the model ended by itself without the closing tag, it considers its text finished, so the text is complete.

    Args:
        completion: The completion.
        section: The section that the model was to write.
        few_shots: Number of examples in the prompt.
    """
    if refused := unanswered(completion):
        return refused
    # The prompt ends with a line feed, which a stop string at the very start of the completion would include.
    written = "\n" + completion.text + completion.stop_string
    text, next_example, _ = written.partition(section.next_example(few_shots))
    text = text[1:]
    if next_example and not text.strip():
        return Rejected("empty", "the model began the next example at once")
    limited = completion.finish_reason == inf.FINISH_REASON_LENGTH and not next_example
    untold = completion.finish_reason == inf.FINISH_REASON_STOP_STRING and not completion.stop_string
    if untold and section.fenced and not next_example and not text.rstrip().endswith(section.closing_tag):
        text = _with_closing_fence(text)
    seen = text + next_example
    end = _end_of_fenced(seen, section, limited=limited) if section.fenced else _end_of_prose(seen, section)
    if end is not None:
        return text[: end + len(section.closing_tag)] if section.fenced else _without_opening_tag(text[:end], section)
    if next_example and not (section.fenced and _ends_with_fence(text)):
        return _cut(f"the model began the next example before {section.closing_tag}")
    if limited:
        return Rejected("cut-off", REASONS["cut-off"])
    if completion.finish_reason == inf.FINISH_REASON_STOP_STRING and not next_example:
        if completion.stop_string:
            return _cut(f"{completion.stop_string!r} was reached inside a code block or an element of the text")
        if not section.fenced and _is_open(text, section):
            return _cut("it ends inside a code block or an element of the text; the endpoint does not tell by what")
    return text if section.fenced else _without_opening_tag(text, section)


def unanswered(completion: inf.Completion) -> Rejected | None:
    """Return why a completion contains no text to parse, or None."""
    reason = _UNANSWERED.get(completion.finish_reason)
    if reason is None:
        return None
    return Rejected(reason, f"{REASONS[reason]}: {completion.detail}" if completion.detail else REASONS[reason])


def _cut(detail: str) -> Rejected:
    return Rejected("cut-by-stop", detail)


def _end_of_fenced(text: str, section: Section, *, limited: bool) -> int | None:
    """Return where the closing tag begins in a section that ends with a code block.

    A tag after a closing fence is the section's, whatever follows. If the fence is missing, the last tag at a line's
    end is, unless a fence follows: then it is part of a string.
    """
    tag = re.escape(section.closing_tag)
    if found := re.search(rf"^[ \t]*(?:`{{3,}}|~{{3,}})\s*({tag})[ \t\r]*$", text, re.MULTILINE):
        return found.start(1)
    last = None if limited else _last(re.finditer(rf"{tag}[ \t\r]*$", text, re.MULTILINE))
    if last is None or any(_FENCE.match(line) for line in text[last.end() :].split("\n")):
        return None
    return last.start()


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    found = None
    for found in matches:  # noqa: B007 (the last one is wanted)
        pass
    return found


def _end_of_prose(text: str, section: Section) -> int | None:
    """Return where the closing tag begins in a section of prose."""
    return next((end for end, _ in _marks(text, section) if end is not None), None)


def _is_open(text: str, section: Section) -> bool:
    """Return whether the text ends inside a code block or an element with the section's name."""
    last = None
    for _, last in _marks(text, section):  # noqa: B007 (the last one is wanted)
        pass
    return bool(last)


def _marks(text: str, section: Section) -> Iterator[tuple[int | None, bool]]:
    """Yield for each line where the section's closing tag begins, or None, and whether something is open after it.

    A tag is not the section's if it is in a code block, in an element of the same name that the text opened, in an
    element with code, the whole item of a list, or in a sentence. In a sentence it may be at a line's end; then the
    sentence continues.
    """
    tag, depth, fence, at = section.closing_tag, 0, "", 0
    opening = re.compile(rf"<{section.name}(\s[^<>]*)?>(<|$)")
    lines = re.sub(tag, tag, text, flags=re.IGNORECASE).split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    for number, line in enumerate(lines):
        stripped, end = line.strip(), None
        ends = stripped.endswith(tag)
        inner = stripped.removesuffix(tag).rstrip()
        if fence and _closes(inner, fence):
            fence = ""
            end = at + line.rindex(tag) if ends and not depth else None
        elif fence:
            pass
        elif found := _FENCE.match(line):
            fence = found.group(1)
        elif (verbatim := _VERBATIM.match(stripped)) and not ends:
            fence = f"</{verbatim.group(1)}>"
        elif opening.match(stripped) and not ends:
            depth += number != first  # the model may repeat the prompt's opening tag
        elif stripped == tag and depth:
            depth -= 1
        elif ends and not depth and (not inner or _closes_text(stripped, tag, lines, number + 1, section)):
            end = at + line.rindex(tag)
        at += len(line) + 1
        yield end, bool(fence or depth)


def _closes(line: str, fence: str) -> bool:
    """Return whether a line closes a code block, by its fence, or an element, by its end tag."""
    if fence.startswith("<"):
        return line.lower().endswith(fence.lower())
    return len(line) >= len(fence) and not line.strip(fence[0])


def _closes_text(line: str, tag: str, lines: list[str], following: int, section: Section) -> bool:
    """Return whether a tag at the end of a line of text is the section's rather than part of the sentence."""
    before = line.removesuffix(tag)
    if _LIST_MARKER.fullmatch(before.strip()):
        return not any(one.strip() for one in lines[following:])
    if before.count(f"<{section.name}>") > before.count(tag):
        return False
    rest = (lines[number].strip() for number in range(following, len(lines)))
    after = next((one for one in rest if one), "")
    if not after:
        return not before[-1].isspace() or before.rstrip()[-1] in _SENTENCE_ENDS
    return after != tag and (not lines[following].strip() or after.startswith(("<", "#")))


def _ends_with_fence(text: str) -> bool:
    lines = text.rstrip().split("\n")
    return bool(re.fullmatch(r"[ \t]*(`{3,}|~{3,})[ \t]*", lines[-1]))


def _with_closing_fence(text: str) -> str:
    """Restore the fence that a stop string removed, for endpoints that do not report which stop string matched."""
    fence = ""
    for line in text.split("\n"):
        if fence:
            fence = "" if _closes(line.strip(), fence) else fence
        elif found := _FENCE.match(line):
            fence = found.group(1)
    return f"{text}\n{fence}" if fence else text


def _without_opening_tag(text: str, section: Section) -> str:
    """Return the text without a repetition of the prompt's opening tag."""
    return re.sub(rf"\A\s*<{section.name}>[ \t]*\n", "", text)
