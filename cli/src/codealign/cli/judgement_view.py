"""Show a judgement on a terminal: a table of answers and tests, then what tells classes and mutants apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import judgements
from codealign.cli.judgements import MAX_LINES, cut
from codealign.cli.report.wording import percent
from codealign.cli.terminal import printable, whole


def judgement_view(judgement: pb.Record, known: Iterable[pb.Record] = ()) -> Iterator[RenderableType]:
    """Yield the parts of a judgement.

    Args:
        judgement: The judgement.
        known: Records among which its responses may be: then attempts have their numbers, otherwise their places.
    """
    found = judgement.judgement
    names = judgements.attempt_names(judgement, known)
    yield _line(judgements.headline(found))
    yield whole(_matrix(judgement, names))
    key = [f"{symbol} {words}" for symbol, words in judgements.results(found)]
    if key:
        yield _line(f"tests of each attempt: {', '.join(key)}", "dim")
    for each in found.telling_inputs[:MAX_LINES]:
        told = [f"class {one.class_number} {cut(one.outcome)}" for one in each.classes[: judgements.MAX_ATTEMPTS]]
        yield _line(f"at {cut(each.arguments)}: {'; '.join(told)}")
    for number in (number for _, members in judgements.by_class(found) for number in members):
        if found.attempts[number].sentence:
            yield _line(f"attempt {names[number]}: {cut(found.attempts[number].sentence)}")
    if found.HasField("mutation_score"):
        yield _line(f"its own tests detect {found.mutation_score:.0%} of the mutants of the best answer")
    for mutant in judgements.mutants(found):
        if mutant.fate == pb.JudgedMutant.FATE_SURVIVED:
            yield _line(f"mutant {cut(mutant.description)}: {judgements.mutant_words(mutant)}")
    for added in found.added_tests[:MAX_LINES] if found.tests else ():
        yield _line(f"added by CodeAlign: {cut(added.text)}  ({judgements.added_words(added)})")


def _matrix(judgement: pb.Record, names: list[str]) -> Table:
    found = judgement.judgement
    classes = judgements.by_class(found)
    columns = [number for _, members in classes for number in members]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("attempt")
    for number in columns if found.pairs else ():
        table.add_column(names[number], justify="center")
    table.add_column("of others' tests", justify="right")
    table.add_column("class")
    for place, members in classes:
        for number in members:
            best = ", best" if judgement.parents[number] == found.best else ""
            cells = [judgements.pair(found, number, tests)[0] for tests in columns] if found.pairs else []
            share = percent(found.attempts[number].tests_share)
            table.add_row(names[number], *cells, share, judgements.class_name(found, place) + best)
    return table


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style)
