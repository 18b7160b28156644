"""Texts of a length: lists of terms, tasks, and answers with code and tests. Nothing in them is meant for reading."""

from __future__ import annotations

import re

from codealign.inference.engines.simulated import profile, program
from codealign.inference.engines.simulated.draws import Draws
from codealign.inference.engines.simulated.wanted import Wanted
from codealign.inference.engines.simulated.words import ADJECTIVES, NOUNS, VERBS

VERSION = 1
"""Raised whenever the same draws come to give another text: part of a model's revision."""

_COMMON_NAMES = 64
"""Names of functions that many tasks have, as models have their favourites."""
_NAMED = re.compile(r"`([a-z_]\w*)\(")
_MOST_PARTS = 10_000


def terms(draws: Draws, chars: int) -> str:
    """A line of short terms, as near to this length as whole terms are, and at least two of them."""
    found: list[str] = []
    length = 0
    while len(found) < 2 or (length < chars and len(found) < 8):
        term = f"{draws.pick(ADJECTIVES)} {draws.pick(NOUNS)}s"
        if term not in found:
            found.append(term)
            length += len(term) + 2
    return ", ".join(found)


def task(draws: Draws, chars: int, repeats: float) -> str:
    """A task that names its function.

    Args:
        draws: Of this completion.
        chars: Its length, about.
        repeats: How often the function bears a common name.
    """
    common = draws.share() < repeats
    naming = Draws("common name", draws.below(_COMMON_NAMES)) if common else draws
    name = f"{naming.pick(VERBS)}_{naming.pick(ADJECTIVES)}_{naming.pick(NOUNS)}"
    if not common:
        name += f"_by_{naming.pick(NOUNS)}_{naming.pick(NOUNS)}"
    parameter = draws.pick(NOUNS)
    text = f"Write `{name}({parameter})`, which must {draws.pick(VERBS)} {draws.pick(ADJECTIVES)} {draws.pick(NOUNS)}s."
    return _padded(text, draws, chars)


def answer(wanted: Wanted, draws: Draws, chars: int, outcome: str) -> str:
    """An answer with code, then tests where they are wanted; the text goes on to the last closing tag.

    The program is the subject's: attempts at one task differ in what they say and test, and in their faults.

    Args:
        wanted: What the prompt asks for.
        draws: Of this completion.
        chars: Its length, about.
        outcome: What is to become of it.
    """
    of_subject = Draws("program", wanted.subject)
    named = _NAMED.search(wanted.subject)
    name = named.group(1) if named else f"{of_subject.pick(VERBS)}_{of_subject.pick(NOUNS)}_{of_subject.pick(NOUNS)}"
    made = program.draw(of_subject, name)
    code = made.code(_clause(draws), outcome)
    tests = made.tests(draws, 1 + draws.below(3), outcome)
    has_tests = wanted.closed and outcome != profile.NO_TESTS
    body = "\n".join(tests)
    rest = max(0, chars - len(code) - (len(body) + 40 if has_tests else 0) - 40)
    text = f"{_padded(_clause(draws), draws, rest)}\n\n```python\n{code}\n```\n"
    if wanted.opened != wanted.closed and outcome != profile.NO_ANSWER_END:
        text += f"</{wanted.opened}>\n"
    if not has_tests:
        return text
    return f"{text}<{wanted.closed}>\n```python\n{body}\n```\n</{wanted.closed}>\n"


def endless(text: str, draws: Draws, chars: int) -> str:
    """A text that does not come to its end within this length: its last line is said again and again."""
    kept = text[: max(1, text.rfind("\n", 0, len(text) * 3 // 4))].rstrip("\n")
    last = kept.rpartition("\n")[2] or _sentence(draws)
    return kept + ("\n" + last) * (1 + max(0, chars - len(kept)) // (len(last) + 1))


def _clause(draws: Draws) -> str:
    return f"{draws.pick(VERBS).capitalize()} {draws.pick(ADJECTIVES)} {draws.pick(NOUNS)}s."


def _sentence(draws: Draws) -> str:
    first = f"{draws.pick(VERBS).capitalize()} {draws.pick(ADJECTIVES)} {draws.pick(NOUNS)}s"
    second = f"{draws.pick(VERBS)} {draws.pick(NOUNS)} {2 + draws.below(998)}"
    return f"{first}, {second}, {draws.pick(VERBS)} {draws.pick(ADJECTIVES)} {draws.pick(NOUNS)}s."


def _padded(text: str, draws: Draws, chars: int) -> str:
    parts = [text]
    length = len(text)
    while length < chars and len(parts) < _MOST_PARTS:
        parts.append(_sentence(draws))
        length += len(parts[-1]) + 1
    return " ".join(parts)
