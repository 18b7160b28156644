"""A plan lists every stage of the run's pipeline with its maximum numbers of items and tokens."""

from __future__ import annotations

from typing import Any

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import Unimplemented
from codealign.coordinator.runs import plan
from codealign.coordinator.runs.config import run_records, stage_configs, with_defaults
from codealign.coordinator.runs.items import SELECTED
from fakes import FakeServices


def run() -> pb.Run:
    return with_defaults(
        pb.Run(
            seeds=pb.SeedSelection(collection="c", limit=3),
            model=pb.ModelChoice(model="model"),
            execution=pb.ExecutionSettings(runs=2),
            stages=[
                pb.StageSettings(stage="concepts", attempts=2, max_tokens=10),
                pb.StageSettings(stage="responses", attempts=4),
            ],
        )
    )


def put_seeds(fakes: FakeServices, count: int) -> None:
    seeds = [pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=f"def f(x):\n    return {n}")) for n in range(count)]
    fakes.dataset.put(*map(records.complete, seeds), collection="c")


async def test_items_multiply_along_the_pipeline() -> None:
    fakes = FakeServices()
    put_seeds(fakes, 5)
    found = await plan.build(fakes.services, run(), ["a note"])
    assert {stage.stage: stage.items for stage in found.stages} == {
        "seeds": 5,
        "concepts": 6,
        "instructions": 6,
        "responses": 24,
        "execution": 48,
        "selection": 6,
    }
    concepts = found.stages[1]
    assert concepts.generated_tokens == 60
    assert concepts.prompt_tokens % 3 == 0
    assert all(stage.prompt_tokens > 0 for stage in found.stages[1:4])
    assert list(found.notes) == ["a note"]
    assert found.run_id == run_records(run())[1].id


async def test_too_few_seeds_are_said() -> None:
    fakes = FakeServices()
    put_seeds(fakes, 2)
    found = await plan.build(fakes.services, run(), [])
    assert list(found.notes) == ["the collection has only 2 seeds, not 3"]
    assert found.stages[1].items == 4


async def test_an_empty_collection_gives_an_empty_plan() -> None:
    found = await plan.build(FakeServices().services, run(), [])
    assert [stage.items for stage in found.stages] == [0] * 6


def put_earlier(fakes: FakeServices, rows: int, **settings: object) -> None:
    """Store a run with this many rows, from twice as many seeds, each for 100 tokens and 9 seconds."""
    given = run()
    given.seed = 5
    given.MergeFrom(pb.Run(**settings))  # type: ignore[arg-type]
    configs, (config, record) = stage_configs(given), run_records(given)
    found = [config, record, *configs.all()]
    for number in range(2 * rows):
        seed = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=f"earlier {number}")))
        kept = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule=SELECTED)
        parents, seeds_id = [seed.id, record.id], configs["seeds"].id
        found += [seed, pb.Record(kind=pb.KIND_DECISION, parents=parents, stage_config_id=seeds_id, decision=kept)]
    for number in range(rows):
        made = pb.Provenance(prompt_tokens=90, cached_prompt_tokens=20, generated_tokens=30)
        response = pb.Record(kind=pb.KIND_RESPONSE, parents=[found[-1].parents[0]], attempt=number, provenance=made)
        response.response.answer = "x"
        response.stage_config_id = configs["responses"].id
        row = pb.Record(kind=pb.KIND_EXAMPLE, parents=[records.record_id(response)], example=pb.Example(response="x"))
        row.stage_config_id = configs["selection"].id
        found += [response, row]
    log = pb.WorkLog(inference_seconds=9 * rows)
    found.append(pb.Record(kind=pb.KIND_WORK_LOG, parents=[record.id], key="1/0", work_log=log))
    fakes.dataset.put(*map(records.complete, found), collection=record.id)


@pytest.mark.parametrize(
    ("target", "rows", "text"),
    [
        ({"rows": 40}, 40, "about 40 rows for 4,000 tokens in 6 min, at the rates of an earlier run"),
        ({"rows": 400}, 50, "the seeds will not suffice for 400 rows"),
        ({"tokens": 3000}, 30, "about 30 rows for 3,000 tokens"),
        ({"device_hours": 0.05}, 20, "about 20 rows for 2,000 tokens in 3 min"),
        ({}, 50, "about 50 rows"),
    ],
)
async def test_a_forecast_is_at_the_rates_of_earlier_runs(target: dict[str, Any], rows: int, text: str) -> None:
    fakes = FakeServices()
    put_seeds(fakes, 100)
    put_earlier(fakes, 10)
    given = run()
    given.seeds.limit = 0
    given.target.CopyFrom(pb.Target(**target))
    found = await plan.build(fakes.services, with_defaults(given), [])
    assert found.forecast.expected_rows == rows
    assert text in found.forecast.text
    assert not found.notes


async def test_runs_of_another_model_or_without_rows_say_nothing_and_that_is_said() -> None:
    fakes = FakeServices()
    put_seeds(fakes, 100)
    put_earlier(fakes, 10, model=pb.ModelChoice(model="other", revision="another"))
    put_earlier(fakes, 0)
    given = run()
    given.target.rows = 3
    found = await plan.build(fakes.services, with_defaults(given), [])
    assert not found.HasField("forecast")
    assert list(found.notes) == [plan.UPPER_BOUNDS]


async def test_runs_with_another_strategy_say_nothing_about_the_rows_of_this_one() -> None:
    fakes = FakeServices()
    put_seeds(fakes, 100)
    put_earlier(fakes, 10, selection=pb.SelectionSettings(strategy="everything"))
    assert not (await plan.build(fakes.services, with_defaults(run()), [])).HasField("forecast")


async def test_a_forecast_is_never_above_the_upper_bound() -> None:
    fakes = FakeServices()
    put_seeds(fakes, 100)
    put_earlier(fakes, 90)
    given = with_defaults(run())
    given.seeds.limit = 3
    given.stages[0].attempts = 1
    found = await plan.build(fakes.services, given, [])
    assert 0 < found.forecast.expected_rows <= plan.most_rows(given, 100)


async def test_an_engine_without_tokenizer_gives_no_counts_and_says_so_once() -> None:
    fakes = FakeServices()
    put_seeds(fakes, 3)
    fakes.inference.control.fail("count_tokens", *[Unimplemented("no tokenizer")] * 3)
    found = await plan.build(fakes.services, run(), [])
    assert [stage.prompt_tokens for stage in found.stages] == [0] * 6
    assert list(found.notes) == [plan.NO_TOKENIZER]
