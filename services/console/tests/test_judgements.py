"""Pages of compared answers: the matrix on a run's, a row's, a response's and the judgement's page, and trials."""

from __future__ import annotations

import pytest

from cli.tests.report.compared import judgement
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.records import complete
from codealign.dataset.storage.append import append
from services.console.tests.compared import Compared
from services.console.tests.conftest import Reading, World, words
from services.console.tests.test_hostile import ELEMENTS, HOSTILE


def rows_of(html: str) -> list[str]:
    """Return the rows of the matrix as a screen reader would read them, one text for each."""
    table = html.partition('<table class="matrix">')[2].partition("</table>")[0]
    return [words(row) for row in table.split("<tr")[1:]]


async def test_a_judgement_is_a_matrix_by_class_with_its_winner_and_its_row(world: World) -> None:
    tree = world.store(Compared())
    html = await world.page(f"/records/{tree.judgement.id}?run={tree.run.id}")
    rows = rows_of(html)
    assert [row.partition(":")[0].strip("> ") for row in rows if "do the same" in row or "one answer" in row] == [
        'class="group"> class 1, which wins',
        'class="group"> class 2',
    ]
    (first,) = [row for row in rows if "became the row" in row]
    assert "answer 0" in first
    assert first.count("passed") == 3
    assert "✓ passed (own tests)" in first
    assert "✗ failed" in first
    (second,) = [row for row in rows if row.startswith("> answer 1")]
    assert "≠ not failed, but contradicts" in second
    assert "? undecided" in second
    (third,) = [row for row in rows if row.startswith("> answer 3")]
    assert "– not executed" in third
    text = words(html)
    for part in (
        "4 answers were compared at 31 inputs. 2 do the same and win",
        "x=5 class 1, which wins returns 6",
        "class 2 returns 4",
        "added by CodeAlign assert f(5) == 6 agreed by 2 attempts; detects line 2, attempt 1",
        "line 2: + became - survived x=5 returns 6 returns 4",
        "its own tests detect 50%",
        "at x=5 it returns 4, another returns 6",
    ):
        assert part in text, part
    assert "{" not in text, "nothing is shown as raw JSON"
    for record in tree.records:
        if record.kind == pb.KIND_RESPONSE:
            assert f'href="/records/{record.id}?run={tree.run.id}"' in html


@pytest.mark.parametrize("name", ["row", "answer"])
async def test_a_row_and_its_answer_show_their_judgement(world: World, name: str) -> None:
    tree = world.store(Compared())
    html = await world.page(f"/records/{getattr(tree, name).id}")
    assert "became the row" in "".join(rows_of(html))
    assert f'<a href="/records/{tree.judgement.id}">Agreement of attempts</a>' in html
    assert "assertions among the row’s tests that CodeAlign wrote" in html


async def test_a_row_whose_judgement_is_missing_is_shown_without(world: World) -> None:
    tree = Compared()
    tree.records.remove(tree.judgement)
    html = await world.page(f"/records/{world.store(tree).row.id}")
    assert "matrix" not in html
    assert "This page is not complete" not in html


async def test_a_judgement_of_before_shows_classes_without_pairs(world: World) -> None:
    tree = Compared()
    old = pb.Record()
    old.CopyFrom(tree.judgement)
    old.judgement.ClearField("pairs")
    old.key, old.content_hash, old.id = "b" * 64, "", ""
    tree.records.append(complete(old))
    world.store(tree)
    html = await world.page(f"/records/{old.id}")
    assert "The results of pairs were not recorded with this judgement" in words(html)
    assert "class 1, which wins: 2 answers do the same" in words(html)
    assert "✓" not in html


async def test_attempts_that_contradict_each_other_have_no_winner(world: World) -> None:
    tree = Compared()
    tree.judgement.judgement.is_contested = True
    tree.judgement.content_hash = ""
    world.store(tree)
    html = await world.page(f"/records/{tree.judgement.id}")
    assert "They contradict each other" in words(html)
    assert "which wins" not in html


async def test_a_trial_is_readable(world: World) -> None:
    tree = world.store(Compared())
    text = await world.words(f"/records/{tree.trials[0].id}")
    assert "Answer 0 with the tests of answer 1." in text
    assert "FAILED_ASSERTION" in text
    assert "Response 0, its code" in text
    assert "Response 1, its tests" in text
    text = await world.words(f"/records/{tree.trials[1].id}")
    assert "Answer 1, called with inputs." in text
    assert "0 returned 6" in text, "the lines that are none are left out"


async def test_trials_and_the_judgement_are_reached_from_the_row(world: World) -> None:
    tree = world.store(Compared())
    html = await world.page(f"/records/{tree.row.id}")
    for record in (*tree.trials, tree.judgement):
        assert f'href="/records/{record.id}"' in html
    assert "answer 0 with the tests of answer 1" in words(html)


async def test_a_run_shows_what_its_comparisons_found(world: World) -> None:
    tree = world.store(Compared())
    tree.report(world.coordinator.reports[tree.run.id])
    html = await world.page(f"/runs/{tree.run.id}")
    text = words(html)
    for part in (
        "instructions judged 7",
        "of these contested, without a row 2",
        "rows with added tests 3 of 5 (60.0%)",
        "A pass that others contradict",
        "2 4 80.0%",
        "90 to below 100% 1 20.0%",
        "50 to below 60% 2 40.0%",
        "60 to below 70% 0",
    ):
        assert part in text, part
    assert "0 to below 10%" not in text
    assert f'href="/records/{tree.judgement.id}?run={tree.run.id}"' in html
    assert "became the row" in "".join(rows_of(html))


async def test_a_run_without_comparisons_says_nothing_of_them(world: World) -> None:
    tree = world.store(Compared())
    assert "Agreement of attempts" not in await world.page(f"/runs/{tree.run.id}")


@pytest.mark.parametrize("text", ["\n".join(HOSTILE), "x" * 10_000], ids=["markup", "a long line"])
async def test_texts_of_a_comparison_are_cut_and_never_markup(world: World, text: str) -> None:
    tree = world.store(Compared(text))
    tree.report(world.coordinator.reports[tree.run.id])
    for url in (
        f"/records/{tree.judgement.id}",
        *(f"/records/{each.id}" for each in tree.trials),
        f"/runs/{tree.run.id}",
    ):
        html = await world.page(url)
        read = Reading(html)
        assert {tag for tag, _ in read.elements} <= ELEMENTS, url
        for tag, given in read.elements:
            assert not [name for name in given if name.startswith("on") or name == "style"], (url, tag, given)
    table = (await world.page(f"/records/{tree.judgement.id}")).partition('<table class="matrix">')[2]
    assert len(table.partition("Facts")[0]) < 150_000


async def test_a_matrix_of_many_answers_is_cut(world: World) -> None:
    made = [
        complete(pb.Record(kind=pb.KIND_RESPONSE, attempt=number, response=pb.Response(code=f"x = {number}\n")))
        for number in range(70)
    ]
    ids = [each.id for each in made]
    found = judgement(ids[0], "")
    del found.attempts[:], found.pairs[:]
    found.attempts.extend(pb.JudgedAttempt(class_number=1, class_size=70) for _ in ids)
    found.pairs.extend([pb.PAIR_RESULT_PASSED] * 70 * 70)
    record = complete(pb.Record(kind=pb.KIND_JUDGEMENT, parents=ids, judgement=found))
    append(world.database, [*made, record], collection="many")
    html = await world.page(f"/records/{record.id}")
    assert html.count('class="cell passed"') <= 24 * 24
    assert "The first 24 of 70 answers are shown." in words(html)
