"""selfcodealign keeps its prompts, parses the format that its templates show, and names the reason for each drop.

`selfcodealign_draws.json` was computed before pipelines were data. As long as it matches, recordings can be replayed
(decision 013).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.coordinator import pipelines
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.selfcodealign import FEW_SHOTS, concepts, responses
from codealign.coordinator.pipelines.stage import Asked, Item, Settings, Writing
from codealign.coordinator.reading import parsing
from codealign.coordinator.reading.parsing import REASONS, Rejected
from codealign.coordinator.rules import duplicates, rows, seeds
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.config import draws_id, with_defaults
from codealign.coordinator.runs.prompting import child_key, drawn_properties, prompt_of, sample_seed

KNOWN: dict[str, Any] = json.loads((Path(__file__).parent / "selfcodealign_draws.json").read_text())
NONE = BenchmarkTexts(())
SEED = records.complete(
    pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="def f(x):\n    return x + 1", name="f", imports=["import math"]))
)
ITEMS = {
    "concepts": SEED,
    "instructions": pb.Record(concept_set=pb.ConceptSet(concepts=["increment", "pure functions"])),
    "responses": pb.Record(instruction=pb.Instruction(text="Write a function `f(x)` that returns x plus one.")),
}
ATTEMPTS = {"concepts": 0, "instructions": 0, "responses": 3}
PROPERTY = ("category", "language", "difficulty")


def run(*stages: pb.StageSettings, few_shot_set: str = "") -> pb.Run:
    given = pb.Run(
        seeds=pb.SeedSelection(collection="c", limit=3),
        model=pb.ModelChoice(model="m", revision="r"),
        seed=7,
        few_shot_set=few_shot_set,
        stages=stages,
    )
    return with_defaults(given)


def drawn(name: str, *values: str) -> pb.PropertyDraw:
    return pb.PropertyDraw(name=name, values=values)


RUNS = {
    "default": run(),
    "nano": run(
        pb.StageSettings(stage="concepts", few_shots=2, max_tokens=48),
        pb.StageSettings(
            stage="instructions",
            few_shots=2,
            unpooled=True,
            properties=[drawn("difficulty", "easy"), drawn("category", "function")],
        ),
        pb.StageSettings(stage="responses", temperature=0, attempts=4),
        few_shot_set="nano",
    ),
    "hard": run(
        pb.StageSettings(stage="instructions", properties=[drawn("difficulty", "medium", "hard")]),
        pb.StageSettings(stage="responses", few_shots=3, prefix_groups=5),
    ),
}


@pytest.fixture
def pipeline() -> Pipeline:
    return pipelines.get("selfcodealign")


def stage_of(name: str) -> Writing:
    stage = pipelines.get("selfcodealign").stage(name)
    assert isinstance(stage, Writing)
    return stage


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def test_templates_and_few_shot_examples_are_the_ones_of_the_recordings(pipeline: Pipeline) -> None:
    assert pipeline.templates_sha256 == KNOWN["templates"]
    assert {name: FEW_SHOTS.content_sha256(name) for name in FEW_SHOTS.names()} == KNOWN["few_shots"]
    assert SEED.id == KNOWN["seed_id"]


@pytest.mark.parametrize("name", RUNS)
def test_draws_keys_prompts_and_samples_are_the_ones_of_the_recordings(pipeline: Pipeline, name: str) -> None:
    settings, known, key = Settings(RUNS[name]), KNOWN[name], SEED.id
    for number, stage in enumerate(pipeline.writing):
        draws, attempt = draws_id(settings.run, stage.name), ATTEMPTS[stage.name]
        assert draws == known["draws"][stage.name]
        assert key == known["keys"][number]
        question = prompt_of(pipeline, settings, stage, Item(ITEMS[stage.name], key))
        assert question.group == known["groups"][number]
        assert [shot.name[:2] for shot in question.asked.shots] == known["shots"][number]
        prompt = question.prompt
        assert f"{digest(prompt.prefix)} {digest(prompt.suffix)}" == known["prompts"][number]
        assert list(stage.section.stop(settings.of(stage.name).few_shots)) == known["stop"][number]
        assert sample_seed(7, stage.name, draws, key, attempt) == known["seeds"][number]
        if stage.name == "instructions":
            assert [question.asked.properties[each] for each in PROPERTY] == known["property"]
        key = child_key(stage, draws, key, attempt)
    assert key == known["keys"][-1]


@pytest.mark.parametrize("name", RUNS)
def test_properties_are_drawn_as_in_the_recordings(name: str) -> None:
    found = [drawn_properties(Settings(RUNS[name]), stage_of("instructions"), key) for key in "abcdef"]
    assert ["/".join(each[name] for name in PROPERTY) for each in found] == KNOWN[name]["properties"]


def test_further_children_of_one_completion_have_keys_of_their_own() -> None:
    stage = stage_of("concepts")
    keys = {child_key(stage, "d", "p", attempt, index) for attempt in (0, 1) for index in (0, 1, 2)}
    assert len(keys) == 6


def test_a_prompt_ends_where_the_models_part_begins() -> None:
    shots = FEW_SHOTS.ordering("selfcodealign", 0, "concepts", "0", 2)
    text = concepts.prefix(shots) + concepts.suffix(3, "def f(x):\n    return x")
    assert text.endswith("return x\n</code>\n<concepts>\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## Example {n}" for n in (1, 2, 3)]
    assert text.count("</concepts>") == 2


def test_the_templates_show_the_model_what_the_parser_reads() -> None:
    (shot,) = FEW_SHOTS.ordering("selfcodealign", 0, "responses", "0", 1)
    completion = responses.prefix([shot]).split("<answer>\n", 1)[1].split(responses.SECTION.closing_tag)[0]
    parsed = parsing.response(completion, cut_off=False)
    assert isinstance(parsed, parsing.ParsedResponse)
    assert parsed.tests == shot.tests + "\n"
    assert parsed.answer == shot.response


def test_a_task_has_the_property_that_it_was_asked_to_have() -> None:
    asked = Asked((), {"category": "class", "difficulty": "hard", "language": "Python"})
    item = Item(ITEMS["instructions"], "key")
    read = stage_of("instructions").parse("Write a class with one method.\n", item, asked)
    assert not isinstance(read, Rejected)
    [body] = read
    assert body == pb.Instruction(
        text="Write a class with one method.",
        category="class",
        language="Python",
        difficulty="hard",
        concepts=["increment", "pure functions"],
    )


@pytest.mark.parametrize(
    ("stage", "text", "reason"),
    [("concepts", ", " * 20, "empty"), ("instructions", "Write it.", "empty"), ("responses", "No.", "no-answer-end")],
)
def test_what_cannot_be_read_gives_one_of_the_stages_own_reasons(stage: str, text: str, reason: str) -> None:
    read = stage_of(stage).parse(text, Item(ITEMS[stage], "key"), Asked((), {}))
    assert isinstance(read, Rejected)
    assert read.reason == reason
    assert reason in stage_of(stage).reasons


def test_every_reason_and_rule_is_some_stages_and_means_something() -> None:
    stages = [stage for name in pipelines.names() for stage in pipelines.get(name).stages]
    reasons = {name: text for stage in stages for name, text in stage.reasons.items()}
    verdicts = {name.removeprefix("VERDICT_") for name in sb.Verdict.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED",
        "PASSED",
    }
    assert set(reasons) >= {*REASONS, *seeds.RULES, *rows.RULES, *duplicates.RULES, *verdicts}
    assert "PASSED" not in reasons, "drops nothing"
    assert all(reasons.values())


def test_a_long_task_is_dropped_by_the_runs_own_limit() -> None:
    ready = run()
    ready.selection.instruction_words = 5
    stage, item = stage_of("instructions"), Item(ITEMS["responses"], "key")
    drop = stage.drop(item, Settings(ready), NONE)
    assert drop is not None
    assert drop.rule == "instruction.too-long"
    assert stage.drop(item, Settings(run()), NONE) is None


def candidate(text: str = "It adds one.") -> Item:
    response = pb.Response(answer="It adds one.", code="def f(x):\n    return x + 1\n", tests="assert f(1) == 2\n")
    return Item(pb.Record(id="i", response=response), "key", {"instructions": ITEMS["responses"]}, text)


def test_a_row_is_dropped_for_what_the_model_wrote_anywhere_in_its_text(pipeline: Pipeline) -> None:
    drop = pipeline.selection.drop(candidate("It adds one.\n</answer>\n<tests>\n# TODO"), Settings(run()), NONE)
    assert drop is not None
    assert drop.rule == "row.placeholder"
    assert pipeline.selection.drop(candidate(), Settings(run()), NONE) is None


def test_whether_a_row_carries_its_tests_depends_on_the_instructions_key_alone(pipeline: Pipeline) -> None:
    found = [pipeline.selection.example(candidate(), Settings(run()), f"key {number}") for number in range(200)]
    assert 70 < sum(row.tests_in_instruction for row in found) < 130, "the default chance is one half"
    for row in found:
        assert ("assert f(1) == 2" in row.instruction) == row.tests_in_instruction
        assert (row.response, row.tests) == ("It adds one.", "assert f(1) == 2\n")
    assert pipeline.selection.compared(candidate(), Settings(run())).instruction == ITEMS["responses"].instruction.text


def test_code_and_tests_are_what_is_executed(pipeline: Pipeline) -> None:
    assert pipeline.execution is not None
    program = pipeline.execution.program(candidate())
    assert (program.code, program.tests) == ("def f(x):\n    return x + 1\n", "assert f(1) == 2\n")
