"""Sentences for people about what attempts do."""

from __future__ import annotations

from codealign.coordinator.agreement.evidence import Attempts
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.subjects import Subject

_SHOWN = 60
"""Characters of arguments and of values."""


def telling_input(attempts: Attempts, i: int) -> int | None:
    """Return the input at which most attempts contradict attempt i; of equal ones the shortest, then the first."""
    counts = dict.fromkeys(attempts.counted, 0)
    for j in attempts.numbers:
        for number in attempts.contradicting(i, j):
            counts[number] += 1
    found = [number for number, count in counts.items() if count]
    return min(found, key=lambda n: (-counts[n], attempts.inputs[n].arguments.chars, n)) if found else None


def sentence(attempts: Attempts, i: int) -> str:
    """Describe what speaks for and against an attempt.

    For example: "passes its own tests, contradicts 3 of 4 other attempts; at size=5 it returns True, another returns
    False".
    """
    tests = {True: "passes its own tests", False: "fails its own tests", None: "its own tests are undecided"}
    parts = [tests[attempts.evidence[i].passed[i]] + _about_others(attempts, i)]
    if refuting := attempts.refuting[i][i]:
        where = min(refuting, key=lambda n: (attempts.inputs[n].arguments.chars, n))
        parts.append(f"contradicts what its own tests expect at {_where(attempts, where)}")
    return "; ".join(parts)


def _about_others(attempts: Attempts, i: int) -> str:
    others = [j for j in attempts.numbers if j != i]
    if not attempts.by_calls:
        decided = [attempts.evidence[i].passed[j] for j in others if attempts.evidence[i].passed[j] is not None]
        return f" and those of {decided.count(True)} of {len(decided)} other attempts; no call can be compared"
    if not attempts.observed(i):
        reason = next((each.text for each in attempts.outcomes[i] if each.text), "it was not called")
        return f"; cannot be compared ({shown(reason)})"
    comparable = [j for j in others if attempts.observed(j)]
    against = [j for j in comparable if attempts.contradicting(i, j)]
    where = telling_input(attempts, i)
    if where is None:
        return f", contradicts none of {len(comparable)} other attempts at {len(attempts.observed(i))} inputs"
    own = attempts.outcomes[i][where]
    other = next(there for j in against if own.contradicts(there := attempts.outcomes[j][where]))
    told = f"at {_where(attempts, where)} it {shown(str(own))}, another {shown(str(other))}"
    return f", contradicts {len(against)} of {len(comparable)} other attempts; {told}"


def _where(attempts: Attempts, number: int) -> str:
    return shown(named(attempts.inputs[number], attempts.subject))


def named(tried: Input, subject: Subject | None) -> str:
    """Return arguments with the names of their parameters: `size=5`."""
    names = [each.name for each in subject.parameters if each.kind == "positional"] if subject else []
    texts = tried.arguments.positional
    if len(names) < len(texts):
        return f"({tried.arguments})"
    pairs = [*zip(names, texts, strict=False), *tried.arguments.keywords]
    return ", ".join(f"{name}={text}" for name, text in pairs) or "no arguments"


def shown(text: str, most: int = _SHOWN) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
