"""A plan lists every stage of the run's pipeline with its maximum numbers of items and tokens."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import Unimplemented
from codealign.coordinator.runs import plan
from codealign.coordinator.runs.config import run_records, with_defaults
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


async def test_an_engine_without_tokenizer_gives_no_counts_and_says_so_once() -> None:
    fakes = FakeServices()
    put_seeds(fakes, 3)
    fakes.inference.control.fail("count_tokens", *[Unimplemented("no tokenizer")] * 3)
    found = await plan.build(fakes.services, run(), [])
    assert [stage.prompt_tokens for stage in found.stages] == [0] * 6
    assert list(found.notes) == [plan.NO_TOKENIZER]
