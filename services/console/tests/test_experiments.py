"""The list of experiments, and the page of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.records import complete
from codealign.console import reading
from codealign.console.pages import experiments
from codealign.dataset.storage.append import append
from services.console.tests.conftest import Reading, words
from services.console.tests.examples import FAILED, RUNNING, SUCCEEDED, experiment

if TYPE_CHECKING:
    from services.console.tests.conftest import World

URL = f"/experiments/{'d' * 32}"


def hrefs(html: str) -> set[str]:
    return {given.get("href") or "" for tag, given in Reading(html).elements if tag == "a"}


async def test_the_experiments_are_listed_with_state_size_and_message(world: World) -> None:
    world.coordinator.experiments.append(experiment())
    html = await world.page("/experiments")
    assert URL in hrefs(html)
    assert "data-live" in html
    assert "what passing is worth running 2 arms, 2 seeds arm passes, seed 1: it has failed" in words(html)
    found = world.coordinator.experiments[0].experiment
    found.wanted = pb.RUN_STATE_PAUSED
    assert "what passing is worth pausing" in await world.words("/experiments")


async def test_without_experiments_the_list_names_the_command_that_starts_one(world: World) -> None:
    page = await world.page("/experiments")
    assert "No experiments yet. codealign experiment ablation starts one" in words(page)
    assert "data-live" not in page


async def test_an_experiment_shows_its_claims_with_their_sentences(world: World) -> None:
    found = experiment()
    world.coordinator.experiments.append(found)
    told = "Passing helps. supported Table 9 Supported: passes is better than base on nanoeval by 15.0 points."
    assert told in await world.words(URL)
    for outcome, tone in (("contradicted", "bad"), ("undecided", "calm")):
        found.result.decisions[0].outcome = outcome
        assert f'<span class="badge {tone}">{outcome}</span>' in await world.page(URL)
    found.ClearField("result")
    assert "Passing helps. Table 9 passes over base: not decided yet" in await world.words(URL)
    found.experiment.config.ClearField("claims")
    assert "This experiment decides nothing" in await world.words(URL)


async def test_an_experiment_shows_means_errors_and_differences_and_the_plot(world: World) -> None:
    world.coordinator.experiments.append(experiment())
    html = await world.page(URL)
    page = words(html)
    assert "NanoEval, 5 samples at temperature 0.7, 164 problems" in page
    assert "arm mean standard error rows seed 0 seed 1 base 46.0 1.0 – 45.0 47.0 passes 60.0 – 127 60.0 –" in page
    assert "passes − base +15.0 +8.0 to +22.0 < 0.001 paired bootstrap over problems +15.0 –" in page
    assert "1 of 4 cells have no result yet" in page
    drawn = [tag for tag, _ in Reading(html).elements if tag == "circle"]
    assert len(drawn) == 2 + 3, "a dot for each arm and each of its seeds"


async def test_a_cell_leads_to_its_run_training_and_evaluations(world: World) -> None:
    world.coordinator.experiments.append(experiment("a" * 32))
    world.coordinator.evaluations.append(
        api.GetEvaluationResponse(evaluation=api.EvaluationStatus(id="f" * 32, state=SUCCEEDED))
    )
    html = await world.page(URL)
    page = words(html)
    assert {f"/runs/{'a' * 32}", f"/trainings/{'7' * 32}", "/versions/v-1", f"/evaluations/{'f' * 32}"} <= hrefs(html)
    assert f"/evaluations/{'e' * 32}" not in hrefs(html), "it does not exist yet"
    assert "NanoEval, 5 samples: not requested yet" in page
    assert "seed 0 base succeeded NanoEval, 5 samples passes succeeded 127 of 180" in page
    assert "passes failed the training failed 127 of 180" in page


async def test_a_live_page_of_an_experiment_is_read_less_often_than_others(world: World) -> None:
    world.coordinator.experiments.append(experiment())
    assert f'data-live="{experiments.LIVE_SECONDS}"' in await world.page(URL)
    assert 'data-live="2"' in await world.page("/experiments")
    world.coordinator.experiments[0].experiment.state = FAILED
    assert "data-live" not in await world.page(URL)


async def test_without_results_a_stopped_experiment_names_the_command_that_continues_it(world: World) -> None:
    found = experiment(state=FAILED)
    found.ClearField("result")
    world.coordinator.experiments.append(found)
    page = await world.page(URL)
    assert f"codealign experiment resume {'d' * 12} continues the experiment" in words(page)
    assert "<circle" not in page
    found.experiment.state = RUNNING
    assert "experiment resume" not in await world.words(URL)


async def test_many_cells_are_cut_and_the_page_names_the_command_that_lists_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "MOST_CELLS", 3)
    monkeypatch.setattr(experiments, "MOST", 1)
    world.coordinator.experiments += [experiment(), experiment()]
    assert f"1 more cells are not shown: codealign experiment show {'d' * 12}" in await world.words(URL)
    assert "1 older experiments are not shown: codealign experiment ls" in await world.words("/experiments")


async def test_an_experiment_whose_results_take_too_long_shows_its_state_and_settings(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.coordinator.experiments.append(experiment(state=SUCCEEDED))
    monkeypatch.setattr(reading, "DEADLINE_SECONDS", 2.0)
    world.coordinator.experiment_seconds = 30.0
    page = await world.words(URL)
    assert "the coordinator service did not answer within 2 s" in page
    assert "what passing is worth succeeded" in page
    assert f"codealign experiment show {'d' * 12} waits for them" in page
    assert "passes nano selfcodealign" in page
    assert "No cell has a result yet" not in page


async def test_what_does_not_exist_or_cannot_be_read_is_said(world: World) -> None:
    assert "no experiment matches 'dddddd'; see `codealign experiment ls`" in await world.words(
        "/experiments/dddddd", 404
    )
    stored = complete(pb.Record(kind=pb.KIND_EXPERIMENT, experiment=pb.Experiment(name="an older one")))
    append(world.database, [stored], collection="")
    record = await world.page(f"/records/{stored.id}")
    assert f"/experiments/{stored.id}" in hrefs(record)
    del world.addresses["coordinator"]
    listed = await world.page("/experiments")
    assert "an older one" in words(listed)
    assert f"/records/{stored.id}" in hrefs(listed)
    assert "The coordinator service is not running or not configured." in await world.words(URL, 503)
