"""distillation answers given instructions once, with the run's model or with a teacher of its own."""

from __future__ import annotations

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common import records
from codealign.coordinator import pipelines
from codealign.coordinator.runs.config import stage_configs, with_defaults
from codealign.coordinator.runs.selection import CHOSEN
from fakes import toys
from fakes.sandbox import passes


def task(number: int) -> pb.Record:
    text = f"Write a function `f` that returns {toys.digest(number)}."
    license_id = "MIT" if number else ""
    body = pb.Instruction(text=text, category="function", language="Python", difficulty="easy", license=license_id)
    return records.complete(pb.Record(kind=pb.KIND_INSTRUCTION, instruction=body))


def answers(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    body = f"```python\ndef f_{sample.seed}():\n    return {sample.seed}\n```"
    tests = f"```python\nassert f_{sample.seed}\n```"
    return toys.said(f"{toys.digest(sample.seed)}\n\n{body}\n</answer>\n<tests>\n{tests}")


def bench(name: str, *stages: pb.StageSettings) -> toys.Bench:
    made = toys.Bench(toys.run_record(name, stages=stages))
    made.fakes.dataset.put(*map(task, range(5)), collection=toys.SEEDS)
    made.fakes.inference.writes = answers
    made.fakes.sandbox.judges = passes
    return made


@pytest.mark.parametrize("name", ["distillation", "distillation-unexecuted"])
async def test_each_task_is_answered_once_and_greedily(name: str) -> None:
    made = bench(name)
    own = made.run.run.stages[0]
    assert (own.stage, own.attempts, own.temperature) == ("answers", 1, 0.0)
    assert (await made.work()).rows == 5
    assert made.fakes.inference.generated == 5
    executed = name == "distillation"
    assert [bool(row.example.verdict_id) for row in made.examples()] == [executed] * 5
    decisions = [record.decision for record in made.fakes.dataset.of_kind(pb.KIND_DECISION, made.run.id)]
    passed = "passed and " if executed else ""
    assert {one.detail for one in decisions if one.rule == CHOSEN} == {
        f"attempt 0 is the lowest that {passed}meets the row rules; 1 of at most 1 were drawn"
    }
    (published,) = made.fakes.dataset.published
    assert published.facts["selection"] == ("lowest attempt that passes" if executed else "lowest attempt")
    assert sorted(row.example.license for row in made.examples()) == ["", *["MIT"] * 4]
    assert {row.example.imported_from for row in made.examples()} == {""}, "the answers were made here"


async def test_a_teacher_of_the_stage_answers() -> None:
    teacher = pb.ModelChoice(model="teacher", revision="rev-teacher")
    made = bench("distillation", pb.StageSettings(stage="answers", model=teacher))
    made.fakes.inference.add_model("teacher", "rev-teacher")
    assert (await made.work()).rows == 5
    assert {request.model for request in made.fakes.inference.requests} == {"teacher"}
    assert {row.example.model_revision for row in made.examples()} == {"rev-teacher"}


def test_both_give_the_same_answers() -> None:
    runs = [
        with_defaults(pb.Run(pipeline=name, seeds=pb.SeedSelection(collection="c")))
        for name in ("distillation", "distillation-unexecuted")
    ]
    assert stage_configs(runs[0])["answers"] == stage_configs(runs[1])["answers"]
    assert pipelines.get("distillation-unexecuted").execution is None
