"""seed-to-instruction requests a task directly from the seed, and shares the other stages with selfcodealign."""

from __future__ import annotations

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.coordinator import pipelines
from codealign.coordinator.pipelines.seed_to_instruction import PIPELINE, instructions
from codealign.coordinator.pipelines.selfcodealign import PIPELINE as SELFCODEALIGN
from codealign.coordinator.pipelines.stage import Asked, Item, Settings
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs import plan
from codealign.coordinator.runs.config import draws_id, stage_configs, with_defaults
from codealign.coordinator.runs.prompting import prompt_of
from fakes import FakeServices

SEED = records.complete(
    pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="def f(x):\n    return sqrt(x)", imports=["from math import sqrt"]))
)
TASKS = PIPELINE.writing[0]


def run(*stages: pb.StageSettings, pipeline: str = "seed-to-instruction", few_shot_set: str = "") -> pb.Run:
    given = pb.Run(
        pipeline=pipeline,
        seeds=pb.SeedSelection(collection="c"),
        model=pb.ModelChoice(model="model"),
        few_shot_set=few_shot_set,
        stages=stages,
    )
    return with_defaults(given)


def test_it_is_found_by_its_folder() -> None:
    assert pipelines.get("seed-to-instruction") is PIPELINE
    assert [stage.name for stage in PIPELINE.stages] == ["seeds", "instructions", "responses", "execution", "selection"]
    assert [stage.name for stage in PIPELINE.children(PIPELINE.seeds)] == ["instructions"]
    assert PIPELINE.candidates.name == "responses"


def test_a_prompt_shows_seeds_and_tasks_and_ends_where_the_task_begins() -> None:
    settings = Settings(run(pb.StageSettings(stage="instructions", few_shots=2)))
    asked, prompt, _ = prompt_of(PIPELINE, settings, TASKS, Item(SEED, SEED.id))
    assert prompt.suffix == (
        "## Example 3\n\n<code>\nfrom math import sqrt\ndef f(x):\n    return sqrt(x)\n</code>\n<property>\n"
        f"category: {asked.properties['category']}\nlanguage: Python\n"
        f"difficulty: {asked.properties['difficulty']}\n</property>\n<task>\n"
    )
    for shot in asked.shots:
        assert shot.seed in prompt.prefix
        assert f"<task>\n{shot.instruction}\n</task>\n" in prompt.prefix
    assert "concepts" not in prompt.text


@pytest.mark.parametrize("few_shots", [1, 8])
def test_the_next_example_begins_as_the_prompt_goes_on(few_shots: int) -> None:
    suffix = instructions.suffix(few_shots + 2, "x", "c", "l", "d")
    assert suffix.startswith(instructions.SECTION.next_example(few_shots).removeprefix("\n"))


def test_a_task_has_its_property_and_no_concepts() -> None:
    asked = Asked((), {"category": "program", "difficulty": "hard", "language": "Python"})
    item = Item(SEED, SEED.id)
    read = TASKS.parse("Write a program of two parts.\n", item, asked)
    assert not isinstance(read, Rejected)
    assert list(read) == [
        pb.Instruction(text="Write a program of two parts.", category="program", language="Python", difficulty="hard")
    ]
    rejected = TASKS.parse("No.", item, asked)
    assert isinstance(rejected, Rejected)
    assert rejected.reason in TASKS.reasons


def test_a_row_is_made_without_concepts() -> None:
    task = pb.Record(id="t", instruction=pb.Instruction(text="Write a function.", category="class", difficulty="easy"))
    response = pb.Record(id="r", response=pb.Response(answer="Here.", code="x = 1\n", tests="assert x\n"))
    item = Item(response, "key", {"seeds": SEED, "instructions": task, "responses": response}, "Here.")
    assert PIPELINE.selection.drop(item, Settings(run()), BenchmarkTexts(())) is None
    row = PIPELINE.selection.example(item, Settings(run()), "key")
    assert (row.category, row.difficulty, list(row.concepts)) == ("class", "easy", [])


def test_its_draws_are_its_own_and_those_of_selfcodealign_stay_as_they_are() -> None:
    own, other = run(), run(pipeline="selfcodealign")
    assert PIPELINE.templates_sha256 != SELFCODEALIGN.templates_sha256
    assert draws_id(own, "instructions") != draws_id(other, "instructions")
    assert stage_configs(own)["execution"] == stage_configs(other)["execution"], "verdicts are shared"


def test_settings_for_concepts_are_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        run(pb.StageSettings(stage="concepts"))
    assert caught.value.violations == [
        ("config.stages[0].stage", "unknown stage 'concepts'; valid: instructions, responses")
    ]


async def test_nanos_few_shot_set_serves_it() -> None:
    fakes = FakeServices()
    fakes.dataset.put(SEED, collection="c")
    found = await plan.build(fakes.services, run(few_shot_set="nano"), [])
    assert [(stage.stage, stage.items) for stage in found.stages] == [
        ("seeds", 1),
        ("instructions", 1),
        ("responses", 10),
        ("execution", 10),
        ("selection", 1),
    ]


def test_where_a_stage_rewrites_the_task_the_row_has_the_task_that_was_answered() -> None:
    line = {
        "tasks": pb.Record(kind=pb.KIND_INSTRUCTION, instruction=pb.Instruction(text="Write f.")),
        "harder-tasks": pb.Record(kind=pb.KIND_INSTRUCTION, instruction=pb.Instruction(text="Write f without a loop.")),
    }
    response = pb.Record(kind=pb.KIND_RESPONSE, response=pb.Response(answer="f", code="f = 1", tests="assert f"))
    item = Item(response, "key", {**line, "responses": response})
    assert PIPELINE.selection.compared(item, Settings(run())).instruction == "Write f without a loop."
    assert PIPELINE.selection.example(item, Settings(run()), "key").instruction.startswith("Write f without a loop.")
