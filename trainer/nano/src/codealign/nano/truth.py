"""The meaning of a task of nano's world, read from its text: the inverse of `functions.describe`.

Tasks that a model wrote are read too, if they say exactly one thing. Their constants may be any of the right kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from codealign.nano.blocks import FILTERS, MAPS, REDUCES, SOURCES, Argument, Block, Filter, Source
from codealign.nano.functions import Composition

_NUMBER = r"(?P<k>\d{1,4})"
_TEXT = r"(?P<k>[^'\\{}]*)"
_TYPES = "|".join(re.escape(argument.value) for argument in Argument)
_CALL = rf"(?P<f>\w+)\((?P<p>\w+)(?:: (?:{_TYPES}))?\)"
_TASK = re.compile(
    rf"[A-Z]\w+ (?:\w+ ){{0,5}}(?:`{_CALL}`|`(?P<named>\w+)` with (?:one|a|the) parameter `(?P<parameter>\w+)`)"
    r"(?:[.,]? (?:that|which|so that it|and|it|It))? (?:(?:should|must|will) )?(?:returns?|gives?|computes?) "
    r"(?P<rest>.*)",
    re.DOTALL,
)
"""A task in one sentence, up to what the function returns; see `examples.TASKS`."""
_PROMPT = re.compile(
    rf"(?:^|docstring says\.[^`]*```python\n)def {_CALL}[^\n]*:\n\s+\"\"\"(?:Returns?|Gives|Compute) "
    r"(?P<rest>.*?)(?:>>>|\"\"\")",
    re.DOTALL,
)
"""The beginning of a function with its docstring, alone or as evaluations ask for it."""
_TESTS = "Your code should pass these tests:"
_END = re.compile(r"\.(?=\s|$)")
_ADDED = re.compile(
    r"\s*(?:This code has a mistake:\s*```python\n.*?```|[A-Z][^.`]*\b(?:linear|linearly|single pass)\b[^.`]*(?:\.|$))",
    re.DOTALL,
)
"""What makes a task harder and leaves its meaning unchanged; see `harder.complicate`."""

_BlockT = TypeVar("_BlockT", bound=Block)
_Constant = int | str | None


@dataclass(frozen=True)
class Meaning:
    """What a task asks for."""

    composition: Composition
    function: str
    """Name of the function."""
    parameter: str


def parse(task: str) -> Meaning | None:
    """Return what a task means, or None if it says nothing of nano's world, or more than one thing.

    Args:
        task: A task, with tests or with what a method made it harder by; or a function's head with its docstring.
    """
    found = _TASK.match(task.partition(_TESTS)[0].strip()) or _PROMPT.search(task)
    if found is None:
        return None
    parts = found.groupdict()
    function, parameter = parts["f"] or parts["named"], parts["p"] or parts["parameter"]
    what, *more = _END.split(parts["rest"], maxsplit=1)
    if more and _ADDED.sub("", more[0]).strip():
        return None
    compositions = list(_compositions(" ".join(what.split()).replace('"', "'"), parameter))
    return Meaning(compositions[0], function, parameter) if len(compositions) == 1 else None


@dataclass(frozen=True)
class _Phrase(Generic[_BlockT]):
    """A block's phrase as a pattern."""

    block: _BlockT
    start: str
    """The phrase's text up to the first gap."""
    pattern: re.Pattern[str]

    def read(self, text: str) -> tuple[_Constant, str] | None:
        """Return the constant and the text in the phrase's gap, or None if the text is another phrase."""
        found = self.pattern.fullmatch(text) if text.startswith(self.start) else None
        if found is None:
            return None
        constant = found["k"] if self.block.constants else None
        is_number = self.block.constants and isinstance(self.block.constants[0], int)
        return int(constant) if constant and is_number else constant, found["gap"]


def _phrases(blocks: Sequence[_BlockT], gap: str) -> list[_Phrase[_BlockT]]:
    """Return the phrases of blocks, in which `gap` stands for a text to be read further."""
    found = []
    for block in blocks:
        constant = _NUMBER if block.constants and isinstance(block.constants[0], int) else _TEXT
        text = re.escape(block.phrase).replace(re.escape(gap), "(?P<gap>.*)").replace(re.escape("{k}"), constant)
        found.append(_Phrase(block, block.phrase.partition("{")[0], re.compile(text)))
    return found


_WHOLE = _phrases(REDUCES, "{them}")
_MADE = _phrases(MAPS, "{them}")
_KEPT = _phrases(FILTERS, "{nouns}")
_PLACES = [
    (source, f"{source.noun or source.kind.value}s", re.escape(source.place).replace(re.escape("{p}"), r"(?P<p>\w+)"))
    for source in SOURCES
]
_ELEMENTS = [
    (source, re.compile(rf"the (?P<before>(?:\w+ )?){nouns} {place}(?P<after>(?: .*)?)"))
    for source, nouns, place in _PLACES
]


def _compositions(what: str, parameter: str) -> Iterator[Composition]:
    """Return every composition that a noun phrase may describe."""
    for whole, whole_constant, of_whole in _read(_WHOLE, what):
        for made, made_constant, of_made in _read(_MADE, of_whole):
            if made.gives not in whole.kinds:
                continue
            for source, kept, kept_constant in _read_elements(of_made, parameter):
                if source.kind in made.kinds:
                    yield Composition(source, kept, made, whole, kept_constant, made_constant, whole_constant)


def _read(phrases: Sequence[_Phrase[_BlockT]], text: str) -> Iterator[tuple[_BlockT, _Constant, str]]:
    for phrase in phrases:
        if found := phrase.read(text):
            yield phrase.block, *found


def _read_elements(text: str, parameter: str) -> Iterator[tuple[Source, Filter, _Constant]]:
    """Return the sources and filters in a phrase such as "the even numbers in `p`"."""
    for source, pattern in _ELEMENTS:
        found = pattern.fullmatch(text)
        if found is None or found["p"] != parameter:
            continue
        # The place stands between the noun and what follows it: without the place, the filter's phrase is left.
        for kept, constant, gap in _read(_KEPT, f"{found['before']}{{nouns}}{found['after']}"):
            if gap == "{nouns}" and source.kind in kept.kinds:
                yield source, kept, constant
