"""Each built-in pipeline in which a model writes runs from seeds to a version, over fakes."""

from __future__ import annotations

import math

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records
from codealign.coordinator import pipelines
from codealign.coordinator.runs import plan
from codealign.coordinator.runs.config import run_records, stage_configs
from fakes import toys
from fakes.sandbox import passes

SEEDS = 6
WRITING = [name for name in pipelines.names() if pipelines.get(name).writing]


def seed(number: int) -> pb.Record:
    body = "\n".join(f"    {word} = x + {len(word)}" for word in toys.digest(number).replace(" ", " w").split()[1:])
    code = f"def seed_{number}(x):\n{body}\n    return x\n"
    return records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=code, name=f"seed_{number}")))


def given(number: int) -> pb.Record:
    task = f"Write a function that returns {toys.digest('given', number)}."
    body = pb.Instruction(text=task, category="function", language="Python", difficulty="easy")
    return records.complete(pb.Record(kind=pb.KIND_INSTRUCTION, instruction=body))


def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    """Return a completion like a model's: different words for every sample, and the section's end marker."""
    words, end = toys.digest(sample.seed), request.sampling.stop[0]
    if "</concepts>" in end:
        text = "lists, sums"
    elif "</answer>" in end:
        task = f"Write a function that returns {words}."
        text = f"{task}\n</task>\n<answer>\nIt takes {words}.\n\n```python\ndef f():\n    return {sample.seed}"
    elif "</tests>" not in end:
        text = f"Write a function that returns {words}."
    else:
        name = f"f{sample.seed}"
        code = f"def {name}(x):\n    return {sample.seed}"
        test = f"assert {name}(1) == {sample.seed}"
        text = f"It takes {words}.\n\n```python\n{code}\n```\n</answer>\n<tests>\n```python\n{test}"
    return inf.Completion(text=text, finish_reason=inf.FINISH_REASON_STOP_STRING, stop_string=end)


def bench(name: str, strategy: str = "first-pass") -> toys.Bench:
    made = toys.Bench(toys.run_record(name, strategy))
    root = seed if pipelines.get(name).seeds.makes == pb.KIND_SEED else given
    made.fakes.dataset.put(*map(root, range(SEEDS)), collection=toys.SEEDS)
    made.fakes.inference.writes = writes
    return made


@pytest.mark.parametrize("name", WRITING)
async def test_every_seed_becomes_a_row_that_knows_all_that_it_came_from(name: str) -> None:
    made, pipeline = bench(name), pipelines.get(name)
    made.fakes.sandbox.judges = passes
    outcome = await made.work()
    before = [stage for stage in made.run.run.stages if stage.stage != pipeline.candidates.name]
    assert (outcome.rows, made.rejections()) == (SEEDS * math.prod(stage.attempts for stage in before), [])
    for row in made.examples():
        assert [step.stage for step in row.example.lineage] == ["seeds", *(stage.name for stage in pipeline.writing)]
        assert row.example.instruction.startswith("Write a function that returns ")
        assert name == "oss-instruct" or (row.example.category, row.example.difficulty) != ("", "")
        assert bool(row.example.verdict_id) == (pipeline.execution is not None)
    configs = {record.id for record in stage_configs(made.run.run).all()}
    derived = (pb.KIND_CONCEPT_SET, pb.KIND_INSTRUCTION, pb.KIND_RESPONSE, pb.KIND_VERDICT, pb.KIND_COMPLETION)
    found = [record for kind in derived for record in made.fakes.dataset.of_kind(kind, made.run.id)]
    found = [record for record in found if record.parents]
    assert found
    assert {record.stage_config_id for record in found} <= configs


@pytest.mark.parametrize("name", WRITING)
async def test_no_stage_keeps_more_than_its_plan_says(name: str) -> None:
    made = bench(name)
    await made.work()
    found = await plan.build(made.fakes.services, made.run.run, [])
    assert found.run_id == run_records(made.run.run)[1].id == made.run.id
    for planned in found.stages:
        assert 0 < made.progress[planned.stage].kept <= planned.items, planned.stage


@pytest.mark.parametrize("strategy", ["failures-only", "everything"])
@pytest.mark.parametrize("name", [name for name in WRITING if pipelines.get(name).execution])
async def test_every_strategy_serves_every_pipeline_that_executes(name: str, strategy: str) -> None:
    made = bench(name, strategy)
    outcome = await made.work()
    assert outcome.rows >= 1
