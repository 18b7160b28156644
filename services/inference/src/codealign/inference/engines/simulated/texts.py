"""Texts of a given length: lists of terms, tasks, and answers with code and tests. They carry no meaning."""

from __future__ import annotations

import re

from codealign.inference.engines.simulated import profile, program
from codealign.inference.engines.simulated.draws import Draws
from codealign.inference.engines.simulated.wanted import Wanted
from codealign.inference.engines.simulated.words import ADJECTIVES, NOUNS, VERBS

VERSION = 1
"""Version of the text generator, part of a model's revision. Increment it whenever the same draws give another text."""

_COMMON_NAMES = 64
"""Function names that many tasks share, since real models have favorite names too."""
_NAMED = re.compile(r"`([a-z_]\w*)\(")
_MOST_PARTS = 10_000


def terms(draws: Draws, chars: int) -> str:
    """Return a line of at least two short terms, close to the given length."""
    found: list[str] = []
    length = 0
    while len(found) < 2 or (length < chars and len(found) < 8):
        term = f"{draws.pick(ADJECTIVES)} {draws.pick(NOUNS)}s"
        if term not in found:
            found.append(term)
            length += len(term) + 2
    return ", ".join(found)


def task(draws: Draws, chars: int, repeats: float) -> str:
    """Return a task that names its function.

    Args:
        draws: The completion's draws.
        chars: Approximate length.
        repeats: Probability that the function has a common name.
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
    """Return an answer with code, then tests if requested; the text includes the last closing tag.

    The subject determines the program: attempts at one task differ in wording, tests and faults.

    Args:
        wanted: What the prompt asks for.
        draws: The completion's draws.
        chars: Approximate length.
        outcome: The outcome that execution must find.
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


def pair(wanted: Wanted, draws: Draws, chars: int, repeats: float, outcome: str) -> str:
    """Return a task and its answer without tests; the text includes the last closing tag.

    Args:
        wanted: What the prompt asks for.
        draws: The completion's draws.
        chars: Approximate length.
        repeats: Probability that the function has a common name.
        outcome: The outcome that execution would find.
    """
    asked = task(draws, chars // 4, repeats)
    text = answer(Wanted(profile.ANSWER, "", "", asked), draws, chars - len(asked), outcome)
    end = "" if outcome == profile.NO_ANSWER_END else f"</{wanted.closed}>\n"
    return f"{asked}\n</{wanted.opened}>\n<{wanted.closed}>\n{text}{end}"


def endless(text: str, draws: Draws, chars: int) -> str:
    """Return a text that does not end within the given length: its last line repeats."""
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
