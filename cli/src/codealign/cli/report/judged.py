"""A judgement as a page shows it: the matrix of answers and tests, what tells classes apart, mutants, added tests.

The template `judgement.html.jinja` has the macros; the console's pages use both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import judgements
from codealign.cli.judgements import MAX_LINES, cut
from codealign.cli.report import listing
from codealign.cli.report.wording import percent

MAX_SOURCE = 20_000
"""Characters of an answer's code."""
_STYLES = {"✓": "passed", "✗": "failed", "≠": "failed", "?": "undecided", "–": "undecided"}

Address = Callable[[str], str]
"""Returns the address of a record's page, or "" if there are none."""


def no_address(_: str) -> str:
    """Return "": the report is a file of its own."""
    return ""


@dataclass(frozen=True)
class Cell:
    """What an answer does with the tests of an attempt."""

    symbol: str
    words: str
    style: str
    own: bool
    """The tests are the answer's own."""


@dataclass(frozen=True)
class Answer:
    """A row of the matrix."""

    name: str
    url: str
    mark: str
    """"became the row", "best answer", or ""."""
    share: str
    """Share of the other attempts' tests that it passes."""
    says: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class AnswerClass:
    """Answers that agree."""

    title: str
    wins: bool
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Told:
    """An input that tells classes apart."""

    arguments: str
    outcomes: tuple[tuple[str, str], ...]
    """Each class with what it does."""


@dataclass(frozen=True)
class MutantLine:
    """A mutant of the best answer."""

    description: str
    fate: str
    survived: bool
    input: str
    expected: str
    outcome: str


@dataclass(frozen=True)
class JudgedView:
    """A judgement."""

    headline: str
    note: str
    """What the matrix lacks, or ""."""
    tests: tuple[tuple[str, str], ...]
    """Name and address of the attempt of each column."""
    classes: tuple[AnswerClass, ...]
    key: tuple[tuple[str, str, str], ...]
    """Symbol, style and meaning of the results that occur."""
    told: tuple[Told, ...]
    mutants: tuple[MutantLine, ...]
    score: str
    """What the own tests detect of the mutants."""
    added: tuple[tuple[str, str], ...]
    """Each added test, and why."""
    sources: tuple[tuple[str, Markup], ...]
    """Code of the best answer, and of an answer of another class."""


def judged_view(judgement: pb.Record, known: Iterable[pb.Record], address: Address = no_address) -> JudgedView:
    """Return a judgement as a page shows it.

    Args:
        judgement: The judgement.
        known: Records among which its responses and its row may be.
        address: Address of a record's page.
    """
    found, known = judgement.judgement, list(known)
    names = judgements.attempt_names(judgement, known)
    classes = judgements.by_class(found)
    columns = [number for _, members in classes for number in members]
    row = _row_response(judgement, known)

    def answer(number: int) -> Answer:
        own, response = found.attempts[number], judgement.parents[number]
        marks = {row: "became the row", found.best: "best answer"} if row != found.best else {row: "became the row"}
        return Answer(
            name=names[number],
            url=address(response),
            mark=marks.get(response, ""),
            share=percent(own.tests_share) if own.tests_share < 1 else "100%",
            says=cut(own.sentence),
            cells=tuple(_cell(found, number, tests) for tests in columns) if found.pairs else (),
        )

    return JudgedView(
        headline=judgements.headline(found),
        note=_note(found, len(columns)),
        tests=tuple((names[number], address(judgement.parents[number])) for number in columns) if found.pairs else (),
        classes=tuple(
            AnswerClass(
                _title(found, number, len(members)),
                number == 1 and not found.is_contested,
                tuple(answer(member) for member in members),
            )
            for number, members in classes
        ),
        key=tuple((symbol, _STYLES[symbol], words) for symbol, words in judgements.results(found)),
        told=tuple(_told(found, each) for each in found.telling_inputs[:MAX_LINES]),
        mutants=tuple(_mutant(each) for each in judgements.mutants(found)),
        score=f"{found.mutation_score:.0%}" if found.HasField("mutation_score") else "",
        added=tuple((cut(each.text), judgements.added_words(each)) for each in found.added_tests[:MAX_LINES])
        if found.tests
        else (),
        sources=tuple(_sources(judgement, known, names)),
    )


def _row_response(judgement: pb.Record, known: Sequence[pb.Record]) -> str:
    """Return the id of the response that became a row, or "" if there is none among the known records."""
    rows = (each for each in known if each.kind == pb.KIND_EXAMPLE and each.example.judgement_id == judgement.id)
    parents = {parent for row in rows for parent in row.parents}
    return next((response for response in judgement.parents if response in parents), "")


def _cell(found: pb.Judgement, answer: int, tests: int) -> Cell:
    symbol, words = judgements.pair(found, answer, tests)
    return Cell(symbol, words.partition(":")[0], _STYLES.get(symbol, "undecided"), answer == tests)


def _title(found: pb.Judgement, number: int, members: int) -> str:
    name = judgements.class_name(found, number)
    if not number:
        return f"{name} ({members})"
    return f"{name}: {members} answers do the same" if members > 1 else f"{name}: one answer"


def _note(found: pb.Judgement, shown: int) -> str:
    notes = []
    if shown < len(found.attempts):
        notes.append(f"The first {shown} of {len(found.attempts)} answers are shown.")
    if not found.pairs:
        notes.append("The results of pairs were not recorded with this judgement; its trials have those that count.")
    return " ".join(notes)


def _told(found: pb.Judgement, each: pb.TellingInput) -> Told:
    outcomes = each.classes[: judgements.MAX_ATTEMPTS]
    return Told(
        cut(each.arguments),
        tuple((judgements.class_name(found, one.class_number), cut(one.outcome)) for one in outcomes),
    )


def _mutant(each: pb.JudgedMutant) -> MutantLine:
    survived = each.fate == pb.JudgedMutant.FATE_SURVIVED
    return MutantLine(
        cut(each.description),
        judgements.FATES[each.fate],
        survived,
        cut(each.input),
        cut(each.expected),
        cut(each.outcome),
    )


def _sources(judgement: pb.Record, known: Sequence[pb.Record], names: Sequence[str]) -> Iterable[tuple[str, Markup]]:
    """Yield the code of the best answer, and of the first one of another class that does not contradict itself."""
    found, there = judgement.judgement, {record.id: record for record in known}
    wanted = [place for place, response in enumerate(judgement.parents) if response == found.best]
    wanted += [
        place
        for place, own in enumerate(found.attempts)
        if own.class_number > 1 and not own.contradicts_itself and judgement.parents[place] != found.best
    ][:1]
    for place in wanted:
        response = there.get(judgement.parents[place])
        if response is not None and response.response.code:
            title = f"answer {names[place]}, {judgements.class_name(found, found.attempts[place].class_number)}"
            yield title, listing.code(response.response.code[:MAX_SOURCE], f"code of {title}")
