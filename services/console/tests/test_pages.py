"""What the pages show, and that a missing service costs only its own part."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import grpc
import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.records import complete
from codealign.console import reading
from codealign.dataset.storage import catalogue
from codealign.dataset.storage.append import append
from services.console.tests.conftest import Reading, Tree, words

if TYPE_CHECKING:
    from services.console.tests.conftest import World

RUNNING = pb.RUN_STATE_RUNNING


async def test_the_runs_are_listed_and_those_at_work_show_their_stages(world: World) -> None:
    done, working = world.store(Tree()), Tree("another one")
    world.store(working, state=RUNNING)
    page = await world.page("/")
    assert f'href="/runs/{done.run.id}"' in page
    assert "data-live" in page
    assert re.search(r"a run succeeded .*another one running .*done kept dropped .*3 /4 2 1", words(page))


async def test_a_page_without_work_in_progress_is_not_live(world: World) -> None:
    tree = world.store(Tree())
    for url in ("/", f"/runs/{tree.run.id}"):
        body = next(given for tag, given in Reading(await world.page(url)).elements if tag == "body")
        assert "data-live" not in body


async def test_a_run_leads_from_each_reason_to_its_records(world: World) -> None:
    tree = world.store(Tree())
    page = await world.page(f"/runs/{tree.run.id}")
    links = [given.get("href") or "" for tag, given in Reading(page).elements if tag == "a"]
    (link,) = {link for link in links if "label=cut-off" in link}
    listed = await world.words(link)
    assert "Rejections" in listed
    assert "1 record, newest first" in listed


async def test_records_are_filtered_and_turned_page_by_page(world: World) -> None:
    tree = world.store(Tree(answers=70))
    of = f"/records?collection={tree.run.id}&kind=verdict"
    assert "70 records, newest first" in await world.words(of)
    passed = await world.page(f"{of}&label=PASSED")
    assert "1 record, newest first" in words(passed)
    assert tree.verdict.id in passed
    assert "Nothing matches" in await world.words(f"{of}&text=nowhere")
    tasks = await world.words(f"/records?collection={tree.run.id}&kind=instruction&category=function")
    assert "1 found among 1 examined" in tasks
    seen: list[str] = []
    url = of
    while url:
        page = await world.page(url)
        seen += re.findall(r'class="to" href="/records/([0-9a-f]{32})', page)
        found = re.search(r'href="([^"]+)" rel="next"', page)
        url = found.group(1).replace("&amp;", "&") if found else ""
    assert len(seen) == len(set(seen)) == 70


async def test_a_verdict_shows_its_program_output_task_and_everything_around_it(world: World) -> None:
    tree = world.store(Tree())
    text = await world.words(f"/records/{tree.verdict.id}")
    for part in (TASK_WORDS, "return x + 1", "assert f( 1 ) == 2", "printed", "kept by chosen", "Examples", "Then"):
        assert part.replace(" ", "") in text.replace(" ", ""), part
    assert "Seed Instruction Response 0 Verdict" in text


TASK_WORDS = "Add one to"


@pytest.mark.parametrize("what", ["run", "seed", "answer", "verdict", "row"])
async def test_every_record_has_a_page_under_its_id_and_its_first_digits(world: World, what: str) -> None:
    tree = world.store(Tree())
    record = getattr(tree, what)
    assert record.id in await world.page(f"/records/{record.id}")
    assert record.id in await world.page(f"/records/{record.id[:8].upper()}")


async def test_what_does_not_exist_is_not_found_and_the_page_says_so(world: World) -> None:
    world.store(Tree())
    for url in ("/records/" + "0" * 32, "/records/x", "/runs/" + "0" * 32, "/versions/v-1", "/trainings/x", "/nothing"):
        assert "not" in (await world.words(url, 404)).lower()
    tree = world.store(Tree("other"))
    for field in ("nothing", "code.more", "__class__", "seed"):
        await world.page(f"/records/{tree.seed.id}/raw/{field}", 404)


async def test_a_wrong_filter_is_explained(world: World) -> None:
    tree = world.store(Tree())
    assert "page_token" in await world.words(f"/records?collection={tree.run.id}&kind=seed&page=x", 404)
    assert "names no collection" in await world.words("/records", 404)


async def test_a_run_that_begins_with_instructions_leads_to_those(world: World) -> None:
    tree = Tree()
    tree.run.run.seeds.collection = "given"
    world.store(tree)
    assert "/records?collection=given&amp;kind=seed" in await world.page(f"/runs/{tree.run.id}")
    stages = world.coordinator.reports[tree.run.id].pipeline.stages
    stages.add(name="seeds", makes=pb.KIND_INSTRUCTION)
    assert "/records?collection=given&amp;kind=instruction" in await world.page(f"/runs/{tree.run.id}")


async def test_a_training_has_a_loss_curve_and_is_live_while_it_runs(world: World) -> None:
    points = [tr.LossPoint(step=step, loss=1 / step, learning_rate=1e-5) for step in range(1, 20)]
    spec = tr.TrainingSpec(name="tuned", model="nano", dataset="v-1")
    world.trainer.trainings.append(
        tr.Training(id="abc", spec=spec, state=tr.TRAINING_STATE_RUNNING, step=19, total_steps=40, losses=points)
    )
    listed, page = await world.page("/trainings"), await world.page("/trainings/abc")
    assert "step 19 of 40" in words(listed)
    assert "From 1.000 at step 1 to 0.053 at step 19." in words(page)
    assert "data-live" in page


async def test_an_evaluation_shows_intervals_and_every_problem(world: World) -> None:
    job = api.EvaluationStatus(id="a" * 32, state=pb.RUN_STATE_SUCCEEDED)
    result = api.Evaluation(id="b" * 32, benchmark="humaneval+", problems_total=2, problems_done=2, pass_at_k={1: 0.5})
    result.intervals[1].CopyFrom(api.Interval(low=0.1, high=0.9))
    result.scores.add(problem_id="HumanEval/0", samples=1, passed=1)
    result.scores.add(problem_id="HumanEval/1", samples=1)
    world.coordinator.evaluations.append(api.GetEvaluationResponse(evaluation=job, results=[result]))
    page = await world.page("/evaluations/aaaaaaaa")
    assert "pass@1 50.0% (10.0 to 90.0%)" in words(page)
    assert "HumanEval/0 1/1" in words(page)
    assert "HumanEval/1 0/1" in words(page)
    assert f"stage={'b' * 32}&amp;text=HumanEval%2F1" in page


async def test_two_runs_are_compared_line_by_line(world: World) -> None:
    one, other = world.store(Tree()), world.store(Tree("x"))
    text = await world.words(f"/compare?a={one.run.id}&b={other.run.id}&rows=1")
    assert "A: a run B: x" in text
    assert "1 only in A" in text


@pytest.mark.parametrize("wrong", ["abcd", "not-an-id", "a" * 33])
async def test_an_address_with_a_wrong_record_id_says_what_an_id_is(world: World, wrong: str) -> None:
    text = await world.words(f"/records/{wrong}", 404)
    assert f"'{wrong}' is not a record id" in text
    assert "at least the first 6" in text


async def test_what_is_away_is_named_and_the_rest_is_shown(world: World) -> None:
    tree = world.store(Tree())
    del world.addresses["coordinator"]
    runs = await world.page("/")
    assert "The coordinator service is not running or not configured." in words(runs)
    assert f'href="/runs/{tree.run.id}"' in runs
    run = await world.words(f"/runs/{tree.run.id}")
    assert "this page shows what the records say" in run
    assert "verdict 2" in run
    world.addresses.clear()
    for url in ("/", "/data", "/trainings", "/evaluations", f"/compare?a={tree.run.id}&b=x"):
        assert "not running or not configured" in await world.words(url)
    for url in (f"/runs/{tree.run.id}", f"/records/{tree.row.id}", "/trainings/x", "/versions/x"):
        assert "not running or not configured" in await world.words(url, 503)


async def test_a_service_that_moved_is_found_again(world: World) -> None:
    world.store(Tree())
    there = dict(world.addresses)
    world.addresses["coordinator"] = "127.0.0.1:1"
    assert "coordinator service at 127.0.0.1:1: cannot reach" in await world.words("/")
    world.addresses.update(there)
    assert "not complete" not in await world.words("/")


async def test_a_page_that_is_being_read_survives_a_service_that_moved(world: World) -> None:
    tree = world.store(Tree())
    world.coordinator.report_seconds = 1.0
    slow = asyncio.create_task(world.words(f"/runs/{tree.run.id}"))
    await world.coordinator.report_asked.wait()
    world.addresses["training"] = "127.0.0.1:1"
    await world.page("/")
    assert "not complete" not in await slow


async def test_without_its_coordinator_a_run_is_not_another_record(world: World) -> None:
    tree = world.store(Tree())
    del world.addresses["coordinator"]
    assert "is not a run" in await world.words(f"/runs/{tree.seed.id}", 404)


async def test_a_part_that_needs_many_calls_is_given_up_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = world.store(Tree())
    monkeypatch.setattr(reading, "PART_SECONDS", 0.5)
    world.coordinator.report_seconds = 30.0
    assert "A part of this page took more than 0.5 s and is left out." in await world.words(f"/runs/{tree.run.id}")


async def test_what_cannot_be_read_is_not_called_empty(world: World) -> None:
    tree = world.store(Tree())
    world.coordinator.reports[tree.run.id].ClearField("verdicts")
    del world.addresses["dataset"]
    for url in (f"/runs/{tree.run.id}", f"/records?collection={tree.run.id}", "/data"):
        page = await world.words(url)
        assert "not complete" in page
        for claim in ("None yet", "0 records", "No answer has been executed yet", "Nothing matches"):
            assert claim not in page, url


async def test_kinds_have_their_plural(world: World) -> None:
    tree = world.store(Tree())
    for kind, plural in (("prompt_prefix", "Prompt prefixes"), ("example", "Rows"), ("stage_config", "Stage configs")):
        assert f"{plural} of" in await world.words(f"/records?collection={tree.run.id}&kind={kind}")


async def test_a_slow_service_does_not_hold_up_the_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = world.store(Tree())
    monkeypatch.setattr(reading, "DEADLINE_SECONDS", 2.0)
    world.coordinator.seconds = 30.0
    page = await world.words("/")
    assert "the coordinator service did not answer within 2 s" in page
    assert tree.run.run.name in page


async def test_a_run_whose_report_takes_too_long_shows_its_progress_and_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = world.store(Tree())
    monkeypatch.setattr(reading, "DEADLINE_SECONDS", 2.0)
    world.coordinator.report_seconds = 30.0
    page = await world.words(f"/runs/{tree.run.id}")
    assert "the coordinator service did not answer within 2 s" in page
    assert "2 of 3 kept, 1 dropped" in page
    assert "1 of 2 answers passed their tests" in page


async def test_a_service_of_another_version_is_named(world: World) -> None:
    tree = world.store(Tree())
    other = grpc.aio.server()
    world.addresses["dataset"] = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    await other.start()
    page = await world.words(f"/runs/{tree.run.id}")
    await other.stop(0)
    assert "the dataset service does not know Count: it is of another version" in page
    assert "1 of 2 answers passed their tests" in page


async def test_a_large_text_is_cut_and_linked_in_full(world: World) -> None:
    tree = world.store(Tree())
    code = "x = 1\n" * 1_200_000 + "# the end\n"
    large = complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=code, name="large")))
    append(world.database, [large], collection=tree.run.id)
    page = await world.page(f"/records/{large.id}")
    assert len(page) < 200_000
    assert f"the first 20,000 of {len(code):,} characters" in page
    answer = await world.browser.get(f"/records/{large.id}/raw/code")
    assert answer.text == code
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert len(await world.page(f"/records?collection={tree.run.id}&kind=seed")) < 50_000


async def test_rows_that_are_not_of_the_version_are_told(world: World) -> None:
    tree = world.store(Tree())
    for name, rows in (("v-1", 0), ("v-2", 1)):
        catalogue.add(world.database, catalogue.PublishedVersion(name, "A title", tree.run.id, rows, ()))
    for name, told in (("v-1", True), ("v-2", False)):
        text = await world.words(f"/versions/{name}")
        assert tree.row.id[:12] in text
        assert ("The collection has 1 row by now" in text) is told


async def test_a_large_list_is_cut_and_linked_in_full(world: World) -> None:
    tree = world.store(Tree())
    concepts = [f"concept {number}" for number in range(3_000)]
    large = complete(pb.Record(kind=pb.KIND_CONCEPT_SET, concept_set=pb.ConceptSet(concepts=concepts)))
    append(world.database, [large], collection=tree.run.id)
    page = await world.page(f"/records/{large.id}")
    link = f"/records/{large.id}/raw/concepts"
    assert f'href="{link}"' in page
    assert (await world.browser.get(link)).text == ", ".join(concepts)


@pytest.mark.parametrize(("short", "whole"), [("/runs", "/"), ("/versions", "/data")])
async def test_the_address_above_a_page_is_its_list(world: World, short: str, whole: str) -> None:
    world.store(Tree())
    without_time = [re.sub(r"\d\d:\d\d:\d\d UTC", "", await world.page(url)) for url in (short, whole)]
    assert without_time[0] == without_time[1]


async def test_a_bug_shows_no_traceback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("codealign.console.pages.runs.tone", broken)
    world.store(Tree())
    answer = await world.browser.get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"
    assert "Traceback" not in answer.text
