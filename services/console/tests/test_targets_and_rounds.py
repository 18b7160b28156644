"""What a run's page shows of its target, and of the series of rounds that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.console import reading
from services.console.tests.conftest import Reading, Tree, words
from services.console.tests.examples import FAILED, RUNNING, SUCCEEDED, add_series, add_target

if TYPE_CHECKING:
    from services.console.tests.conftest import World

ROUNDS = ("1" * 32, "2" * 32)
"""Runs of the rounds before that of the page's run."""


def links(html: str) -> list[str]:
    return [given.get("href") or "" for tag, given in Reading(html).elements if tag == "a"]


async def test_a_run_at_work_shows_what_is_reached_of_each_part_of_its_target_and_the_forecast(world: World) -> None:
    tree = world.store(Tree(), state=RUNNING)
    add_target(world.coordinator.reports[tree.run.id], ended=False)
    page = await world.words(f"/runs/{tree.run.id}")
    assert "The run ends at 400 rows or 2,000,000 tokens or 8 device hours on 2 devices." in page
    assert "rows 100 400 tokens 500,000 2,000,000 device hours 1.50 8" in page
    assert "about 390 rows at the end in about 2 h 10 min" in page
    assert "about 390 rows at the end in about 2 h 10 min" in await world.words("/")


async def test_a_run_that_has_ended_says_why_and_what_it_reached(world: World) -> None:
    tree = world.store(Tree())
    report = world.coordinator.reports[tree.run.id]
    add_target(report, ended=True)
    page = await world.words(f"/runs/{tree.run.id}")
    assert "rows 400 400 tokens 1,200,000 2,000,000 " in page
    assert "device hours 0.00" not in page, "they are not known any more"
    told = "The target in rows was reached: 400 rows from 900 seeds for 1,200,000 tokens, 3,000 per row."
    assert told in page
    assert "difficulty hard 600 100.0% 200 100.0%" in page
    report.target.why = "device hours"
    assert "The device hours were used up" in await world.words(f"/runs/{tree.run.id}")


async def test_a_target_of_which_nothing_is_known_says_what_to_do(world: World) -> None:
    tree = world.store(Tree(), state=pb.RUN_STATE_PAUSED)
    report = world.coordinator.reports[tree.run.id]
    assert 'id="target"' not in await world.page(f"/runs/{tree.run.id}")
    report.run.config.target.rows = 400
    assert f"codealign resume {tree.run.id[:12]} continues" in await world.words(f"/runs/{tree.run.id}")


async def test_a_round_leads_to_the_others_of_its_series_with_their_measures(world: World) -> None:
    tree = world.store(Tree(), state=RUNNING)
    runs = (ROUNDS[0], tree.run.id, ROUNDS[1])
    add_series(world.coordinator.reports[tree.run.id], runs, RUNNING, "round 3 of 3: generating data")
    html = await world.page(f"/runs/{tree.run.id}")
    page = words(html)
    assert "round 2 of 3 · previous round · next round" in page
    assert "3 of 3 rounds, running" in page
    assert "round 3 of 3: generating data" in page
    figures = "31 23.7% 50 0.395 0.000 0.011, 0.000 NanoEval, 5 samples 61.3% 50.0 to 70.0% −15.9 (p < 0.001)"
    assert f"round 1 v-1 {figures}, worse beyond noise tuned model passed" in page
    assert "round 2 this run v-2" in page
    found = links(html)
    assert [one for one in found if one.startswith("/runs/")] == [
        *(f"/runs/{run}" for run in ROUNDS),  # at the top: the rounds before and after
        *(f"/runs/{run}" for run in runs),
    ]
    assert {"/versions/v-1", f"/records/{'c' * 32}"} <= set(found)


@pytest.mark.parametrize(
    ("state", "passed"), [(RUNNING, 1), (FAILED, 1), (SUCCEEDED, 2)], ids=["running", "failed", "succeeded"]
)
async def test_the_stop_rules_verdict_is_shown_for_every_round(
    world: World, state: pb.RunState.ValueType, passed: int
) -> None:
    tree = world.store(Tree())
    add_series(world.coordinator.reports[tree.run.id], (ROUNDS[0], tree.run.id), state, "a reason with figures")
    page = await world.page(f"/runs/{tree.run.id}")
    assert page.count('<td data-label="stop rules">passed</td>') == passed
    assert "a reason with figures" in page
    rules = (
        "no row is kept; or the share of responses that pass is below 0.5 times round 1's; or the tuned model is worse"
    )
    assert rules in words(page), "a rule that is switched off is not named"


async def test_a_series_without_a_round_and_a_run_without_a_series(world: World) -> None:
    tree = world.store(Tree())
    assert 'id="rounds"' not in await world.page(f"/runs/{tree.run.id}")
    add_series(world.coordinator.reports[tree.run.id], (), RUNNING, "loading the model")
    page = await world.words(f"/runs/{tree.run.id}")
    assert "No round has begun yet" in page
    assert "0 of 3 rounds, running" in page


async def test_without_the_report_the_rounds_are_those_of_the_status(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = world.store(Tree())
    add_series(world.coordinator.reports[tree.run.id], (tree.run.id, ROUNDS[1]))
    monkeypatch.setattr(reading, "DEADLINE_SECONDS", 2.0)
    world.coordinator.report_seconds = 30.0
    page = await world.page(f"/runs/{tree.run.id}")
    assert f'href="/runs/{ROUNDS[1]}"' in page
    assert "31 23.7% 50 0.395" in words(page)


async def test_a_round_that_has_ended_is_live_while_its_series_goes_on(world: World) -> None:
    tree = world.store(Tree())
    add_series(world.coordinator.reports[tree.run.id], (tree.run.id, ROUNDS[1]), RUNNING, "round 2 of 3: training")
    page = await world.page(f"/runs/{tree.run.id}")
    assert "data-live" in page
    assert 'id="progress"' not in page, "the run itself is not at work"
    world.coordinator.reports[tree.run.id].run.series.state = FAILED
    assert "data-live" not in await world.page(f"/runs/{tree.run.id}")
