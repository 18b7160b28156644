"""Judgements in words: names of attempts, results of pairs, fates of mutants. Texts of models are cut to one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.terminal import count

MAX_ATTEMPTS = 24
"""Attempts that a matrix shows: more columns fit no screen."""
MAX_LINES = 60
"""Mutants, added tests and inputs that are listed."""
MAX_CHARS = 300
"""Characters of a sentence, an input, an outcome, a mutant or an added test."""
RESULTS: Mapping[int, tuple[str, str]] = {
    pb.PAIR_RESULT_PASSED: ("✓", "passed"),
    pb.PAIR_RESULT_FAILED: ("✗", "failed"),
    pb.PAIR_RESULT_CONTRADICTS: ("≠", "not failed, but contradicts what the tests compute for another input"),
    pb.PAIR_RESULT_UNDECIDED: ("?", "undecided: the machine may have decided, so it counts for nothing"),
    pb.PAIR_RESULT_NOT_EXECUTED: ("–", "not executed: the tests call something that the answer does not define"),
}
"""Symbol and meaning of what an answer does with tests."""
UNKNOWN = (" ", "not recorded")
FATES: Mapping[int, str] = {
    pb.JudgedMutant.FATE_SURVIVED: "survived",
    pb.JudgedMutant.FATE_KILLED: "detected",
    pb.JudgedMutant.FATE_EQUIVALENT: "does the same at all inputs",
    pb.JudgedMutant.FATE_UNDECIDED: "undecided",
}
"""What happened to mutants, those first that tell most."""


def cut(text: str, most: int = MAX_CHARS) -> str:
    """Return the beginning of an untrusted text in one line."""
    words = " ".join(text[: most * 2].split())
    return words if len(words) <= most and len(text) <= most * 2 else f"{words[:most].rstrip()} …"


def attempt_names(judgement: pb.Record, known: Iterable[pb.Record]) -> list[str]:
    """Return what to call the attempts of a judgement: their numbers, or their places if numbers are unknown or equal.

    Args:
        judgement: The judgement.
        known: Records among which its responses may be.
    """
    there = {record.id: record for record in known}
    numbers = [str(there[parent].attempt) for parent in judgement.parents if parent in there]
    if len(set(numbers)) == len(judgement.parents):
        return numbers
    return [str(place) for place in range(len(judgement.parents))]


def pair(found: pb.Judgement, answer: int, tests: int) -> tuple[str, str]:
    """Return the symbol and the meaning of what an answer does with the tests of an attempt."""
    place = answer * len(found.attempts) + tests
    return RESULTS.get(found.pairs[place], UNKNOWN) if place < len(found.pairs) else UNKNOWN


def results(found: pb.Judgement) -> list[tuple[str, str]]:
    """Return the symbols that occur among the pairs, each with its meaning."""
    there = set(found.pairs)
    return [RESULTS[result] for result in RESULTS if result in there]


def by_class(found: pb.Judgement) -> list[tuple[int, list[int]]]:
    """Return the classes with their attempts, the winning one first; 0, what could not be compared, last.

    At most `MAX_ATTEMPTS` attempts.
    """
    classes: dict[int, list[int]] = {}
    for number, each in enumerate(found.attempts):
        classes.setdefault(each.class_number, []).append(number)
    ordered, left = [], MAX_ATTEMPTS
    for number in sorted(classes, key=lambda each: (each == 0, each)):
        if left > 0:
            ordered.append((number, classes[number][:left]))
            left -= len(classes[number])
    return ordered


def class_name(found: pb.Judgement, number: int) -> str:
    """Return a class with what it came to: "class 1, which wins"."""
    if not number:
        return "not compared"
    return f"class {number}" + (", which wins" if number == 1 and not found.is_contested else "")


def headline(found: pb.Judgement) -> str:
    """Return what was compared and what came of it in a sentence or two."""
    compared = f"{len(found.attempts)} answers were compared at {found.inputs:,} inputs."
    if not found.inputs:
        compared = f"{len(found.attempts)} answers were compared by the tests that they pass: no call can be compared."
    if found.is_contested:
        return f"{compared} They contradict each other: no class is likely enough to be right, and there is no row."
    agreeing = sum(each.class_number == 1 for each in found.attempts)
    if not agreeing:
        return compared
    does = "One answer is the winning class" if agreeing == 1 else f"{agreeing} do the same and win"
    return f"{compared} {does}; what they do is right with a probability of {found.probability:.0%}."


def mutants(found: pb.Judgement) -> Sequence[pb.JudgedMutant]:
    """Return the mutants, survivors first."""
    order = list(FATES)
    known = [each for each in found.mutants if each.fate in FATES]
    return sorted(known, key=lambda each: order.index(each.fate))[:MAX_LINES]


def mutant_words(each: pb.JudgedMutant) -> str:
    """Return what happened to a mutant: "survived; at n=5 it returns 2 instead of 1"."""
    fate = FATES.get(each.fate, "unknown")
    if not each.input:
        return fate
    return f"{fate}; would be detected at {cut(each.input)}: {cut(each.expected)}, the mutant {cut(each.outcome)}"


def added_words(each: pb.AddedTest) -> str:
    """Return why a test was added: "agreed by 3 attempts; detects line 2: < became <="."""
    told = ", ".join(cut(text, 100) for text in each.detects[:5])
    more = f" and {len(each.detects) - 5} more" if len(each.detects) > 5 else ""
    return f"agreed by {count(each.agreed_by, 'attempt')}" + (f"; detects {told}{more}" if told else "")
