"""The comparison of attempts in the report, on the terminal, and in a lineage."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from cli.tests.report import compared
from cli.tests.report.test_page import Parsed
from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import judgements
from codealign.cli.judgement_view import judgement_view
from codealign.cli.records_view import record_view
from codealign.cli.report.agreement import COLUMNS, agreement_view, sentence
from codealign.cli.report.judged import judged_view
from codealign.cli.report.page import render


def printed(judgement: pb.Record, known: list[pb.Record]) -> str:
    file = io.StringIO()
    for part in judgement_view(judgement, known):
        Console(file=file, width=160, color_system=None).print(part)
    return file.getvalue()


def test_the_matrix_is_by_class_with_own_tests_on_the_diagonal() -> None:
    view = judged_view(*compared.records())
    assert [(each.title, each.wins) for each in view.classes] == [
        ("class 1, which wins: 2 answers do the same", True),
        ("class 2: one answer", False),
        ("not compared (1)", False),
    ]
    answers = [answer for each in view.classes for answer in each.answers]
    assert [answer.name for answer in answers] == [name for name, _ in view.tests] == ["0", "2", "1", "3"]
    for place, answer in enumerate(answers):
        assert [cell.own for cell in answer.cells] == [number == place for number in range(4)]
    assert ["".join(cell.symbol for cell in answer.cells) for answer in answers] == ["✓✓✓✗", "✓✓✓✗", "✓≠✓?", "✗✗–✗"]
    assert [answer.mark for answer in answers] == ["became the row", "", "", ""]
    assert {symbol for symbol, _, _ in view.key} == set("✓✗≠?–")


def test_the_best_answer_is_marked_if_another_became_the_row() -> None:
    judged, known = compared.records()
    known[-1].parents[:] = [judged.parents[2]]
    marks = {answer.name: answer.mark for each in judged_view(judged, known).classes for answer in each.answers}
    assert marks == {"0": "best answer", "1": "", "2": "became the row", "3": ""}
    marks = {answer.name: answer.mark for each in judged_view(judged, known[:-1]).classes for answer in each.answers}
    assert marks["0"] == "best answer"


def test_attempts_have_places_if_their_numbers_are_unknown_or_equal() -> None:
    judged, known = compared.records()
    assert judgements.attempt_names(judged, []) == ["0", "1", "2", "3"]
    for record, number in zip(known[1:5], (4, 7, 8, 9), strict=True):
        record.attempt = number
    assert judgements.attempt_names(judged, known) == ["4", "7", "8", "9"]
    known[1].attempt = 9
    assert judgements.attempt_names(judged, known) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("text", ["x" * 10_000, "a b\n" * 4_000], ids=["a word", "lines"])
def test_texts_are_cut_to_a_line(text: str) -> None:
    view = judged_view(*compared.records(text))
    short = [
        *(answer.says for each in view.classes for answer in each.answers),
        *(told.arguments for told in view.told),
        *(outcome for told in view.told for _, outcome in told.outcomes),
        *(part for each in view.mutants for part in (each.description, each.input, each.expected, each.outcome)),
        *(each for pair in view.added for each in pair),
    ]
    assert len(short) > 10
    assert all(len(each) <= 2 * judgements.MAX_CHARS and "\n" not in each for each in short)
    lines = printed(*compared.records(text)).splitlines()
    assert len(lines) < 100


def test_fates_that_this_release_does_not_know_are_left_out() -> None:
    judged, known = compared.records()
    assert any(each.fate not in judgements.FATES for each in judged.judgement.mutants)
    assert [each.fate for each in judged_view(judged, known).mutants] == ["survived", "detected"]


def test_the_report_shows_the_comparison(small: api.GetReportResponse) -> None:
    words = Parsed(render(small)).words
    for part in (
        "Agreement of attempts",
        "instructions judged 7",
        "A pass that others contradict",
        "4 answers were compared at 31 inputs. 2 do the same and win",
        "answer 0 became the row",
        "added by CodeAlign assert f(5) == 6",
        "added_tests assertions among the row’s tests that CodeAlign wrote",
    ):
        assert part in words, part


def test_a_sample_says_so_and_the_whole_does_not(small: api.GetReportResponse) -> None:
    exact = sentence(small.agreement)
    assert exact == (
        "7 instructions judged, 2 contested; 1 pass outside the winning class; 3 of 5 rows with added tests"
    )
    small.agreement.all_rows = 9_000
    assert sentence(small.agreement) == f"{exact} (of at most 500 of 7 judgements and of 9,000 rows, at random)"


def test_columns_mean_what_the_documentation_says() -> None:
    page = (Path(__file__).parents[3] / "docs/judged-tests.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    for name, meaning in COLUMNS:
        said = documented.pop(name).replace("null:", "empty:").replace("`tests`", "the row's tests")
        assert meaning.replace("’", "'") == said
    assert not documented


def test_without_comparisons_there_is_nothing_to_show(large: api.GetReportResponse) -> None:
    assert agreement_view(large) is None
    assert "Agreement of attempts" not in render(large)


def test_the_terminal_says_the_same() -> None:
    text = printed(*compared.records())
    for part in (
        "2 do the same and win",
        "at x=5: class 1 returns 6; class 2 returns 4",
        "attempt 1: passes its own tests, contradicts 2 of 3 other attempts",
        "mutant line 2: + became -: survived; would be detected at x=5: returns 6, the mutant returns 4",
        "added by CodeAlign: assert f(5) == 6  (agreed by 2 attempts; detects line 2, attempt 1)",
        "its own tests detect 50% of the mutants",
        "≠ not failed, but contradicts",
    ):
        assert part in text, part
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "✓", "✓", "✓", "✗", "75.0%", "class", "1,", "which", "wins,", "best"] in rows


def test_a_judgement_and_a_trial_are_shown_whole_without_json() -> None:
    judged, _ = compared.records()
    trial = pb.Record(kind=pb.KIND_TRIAL, parents=["a" * 32, "b" * 32], key="a" * 64)
    trial.trial.result.detail = "assert f(5) == 6"
    file = io.StringIO()
    for record in (judged, trial):
        Console(file=file, width=160, color_system=None).print(record_view(record))
    text = file.getvalue()
    assert "class 2 returns 4" in text
    assert "with the tests of the second parent" in text
    assert "assert f(5) == 6" in text
    assert "{" not in text
