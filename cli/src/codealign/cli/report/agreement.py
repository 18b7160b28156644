"""What the comparison of attempts found in a run, in words and as distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.cli.report import charts
from codealign.cli.report.judged import Address, JudgedView, judged_view, no_address
from codealign.cli.report.sections import Count
from codealign.cli.report.wording import percent, share
from codealign.cli.terminal import count

COLUMNS = (
    ("attempts", "answers to the instruction that were compared, the row’s included"),
    ("class_size", "how many of them do the same as the row’s answer wherever they were observed, itself included"),
    (
        "tests_share",
        "share of the other attempts’ tests that the row’s answer passes, of those that are decided",
    ),
    (
        "mutation_score",
        "share of small faults in the row’s answer that its own tests detect, those that change nothing left out; "
        "empty: none was decided, no undetected one could be observed, or the answer is not its class’s best",
    ),
    ("surviving_mutants", "the small faults that its own tests do not detect, each with its place and change"),
    (
        "added_tests",
        "assertions among the row’s tests that CodeAlign wrote, not the model: answers of the class agree on them, and "
        "they detect what the other tests do not",
    ),
)
"""Columns of a row whose attempts were compared, with their meaning."""


@dataclass(frozen=True)
class Distribution:
    """Rows by a value."""

    title: str
    unit: str
    lines: tuple[Count, ...]


@dataclass(frozen=True)
class AgreementView:
    """What the comparison found."""

    facts: tuple[tuple[str, str], ...]
    distributions: tuple[Distribution, ...]
    shown: JudgedView | None
    """The judgement that shows most."""
    shown_id: str
    instruction: str
    """Text of its instruction."""
    has_outvoted: bool
    """In it, an answer that passes its own tests is outvoted."""


def agreement_view(report: api.GetReportResponse, address: Address = no_address) -> AgreementView | None:
    """Return what the comparison found, or None if nothing was compared.

    Args:
        report: The run's report.
        address: Address of a record's page.
    """
    if not report.HasField("agreement"):
        return None
    found = report.agreement
    shown = judged_view(found.shown, found.shown_records, address) if found.HasField("shown") else None
    tasks = (record.instruction.text for record in found.shown_records if record.HasField("instruction"))
    return AgreementView(
        facts=facts(found),
        distributions=tuple(_distributions(found)),
        shown=shown,
        shown_id=found.shown.id,
        instruction=next(tasks, ""),
        has_outvoted=any(
            each.class_number > 1 and not each.contradicts_itself for each in found.shown.judgement.attempts
        )
        and not found.shown.judgement.is_contested,
    )


def facts(found: api.AgreementReport) -> tuple[tuple[str, str], ...]:
    """Return the numbers by name."""
    rows = max(found.rows, 1)
    all_facts = {
        "instructions judged": f"{found.instructions:,}",
        "of these contested, without a row": f"{found.contested:,}",
        "passes outside the winning class": f"{found.outvoted:,}",
        "rows with added tests": f"{found.rows_with_added_tests:,} of {found.rows:,} "
        f"({percent(found.rows_with_added_tests / rows)})"
        if found.rows
        else "",
        "these numbers are from": _sampled(found),
    }
    return tuple((name, text) for name, text in all_facts.items() if text)


def sentence(found: api.AgreementReport) -> str:
    """Return the numbers in one sentence."""
    text = (
        f"{count(found.instructions, 'instruction')} judged, {found.contested:,} contested; "
        f"{count(found.outvoted, 'pass', 'passes')} outside the winning class; "
        f"{found.rows_with_added_tests:,} of {count(found.rows, 'row')} with added tests"
    )
    sampled = _sampled(found)
    return f"{text} (of {sampled})" if sampled else text


def _sampled(found: api.AgreementReport) -> str:
    """Return what the numbers were counted in, or "" if it is everything."""
    if max(found.all_judgements, found.all_rows) <= found.sample:
        return ""
    return f"at most {found.sample:,} of {found.all_judgements:,} judgements and of {found.all_rows:,} rows, at random"


def _distributions(found: api.AgreementReport) -> list[Distribution]:
    sizes = [(f"{size}", found.class_sizes[size]) for size in sorted(found.class_sizes)]
    given = (
        ("Class size: answers that do the same as the row’s", "answers", sizes),
        (
            "Tests share: share of others’ tests that the row’s answer passes",
            "share",
            _steps(found.tests_shares),
        ),
        (
            "Mutation score: share of small faults that the row’s own tests detect",
            "score",
            _steps(found.mutation_scores),
        ),
    )
    return [
        Distribution(title, unit, tuple(_line(words, number, found.rows) for words, number in lines))
        for title, unit, lines in given
        if any(number for _, number in lines)
    ]


def _steps(numbers: Sequence[int]) -> list[tuple[str, int]]:
    """Return steps of equal width with their numbers, without those at the ends that are empty; the last is 100%."""
    width = 100 // max(len(numbers) - 1, 1)
    names = [f"{width * place} to below {width * (place + 1)}%" for place in range(len(numbers) - 1)] + ["100%"]
    there = [place for place, number in enumerate(numbers) if number]
    if not there:
        return []
    return [(names[place], numbers[place]) for place in range(there[0], there[-1] + 1)]


def _line(words: str, number: int, rows: int) -> Count:
    bar = charts.bar(("plain", number / rows if rows else 0))
    return Count(words, words, number, share(number, rows), bar)
