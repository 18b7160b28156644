"""A run's defaults, validation and identity, and the configurations of its stages."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import InvalidArgument
from codealign.coordinator import pipelines
from codealign.coordinator.pipelines.selfcodealign import FEW_SHOTS, PIPELINE
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution
from codealign.coordinator.pipelines.selfcodealign.responses import Responses
from codealign.coordinator.pipelines.selfcodealign.seeds import SeedFunctions
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection
from codealign.coordinator.pipelines.stage import Stage
from codealign.coordinator.reading import sections
from codealign.coordinator.rules import version
from codealign.coordinator.runs.config import (
    ROW_RULES,
    draws_id,
    model_of,
    run_records,
    stage_configs,
    with_defaults,
)

WRITING = ("concepts", "instructions", "responses")


def stage(name: str, **changes: object) -> pb.StageSettings:
    return pb.StageSettings(stage=name, **changes)  # type: ignore[arg-type]


def drawn(name: str, *values: str) -> pb.PropertyDraw:
    return pb.PropertyDraw(name=name, values=values)


def run(*stages: pb.StageSettings, **changes: object) -> pb.Run:
    given = pb.Run(seeds=pb.SeedSelection(collection="c", limit=3), model=pb.ModelChoice(model="m", revision="r"))
    given.MergeFrom(pb.Run(stages=stages, **changes))  # type: ignore[arg-type]
    return with_defaults(given)


def of(ready: pb.Run, name: str) -> pb.StageSettings:
    return next(settings for settings in ready.stages if settings.stage == name)


def violations(*stages: pb.StageSettings, **changes: object) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        run(*stages, **changes)
    return dict(caught.value.violations)


def test_defaults_are_the_papers() -> None:
    ready = run()
    assert [settings.stage for settings in ready.stages] == list(WRITING)
    assert [settings.few_shots for settings in ready.stages] == [8, 8, 1]
    responses = of(ready, "responses")
    assert (responses.attempts, responses.max_tokens) == (10, 1024)
    assert responses.temperature == 0.7
    assert list(of(ready, "instructions").properties[0].values) == ["function", "function", "class", "program"]
    assert ready.selection.instruction_words == 200
    assert ready.selection.near_duplicates == "similarity"
    assert ready.selection.strategy == "first-pass"
    assert (ready.pipeline, ready.few_shot_set) == ("selfcodealign", "selfcodealign")


def test_defaults_filled_in_again_change_nothing() -> None:
    ready = run(stage("responses", unpooled=True, properties=[]))
    assert with_defaults(ready) == ready


def test_versions_are_this_coordinators_own_whatever_is_given() -> None:
    ready = run(stage("concepts", version=99), selection=pb.SelectionSettings(rules_version=99))
    assert of(ready, "concepts").version == PIPELINE.writing[0].reading_version
    assert ready.selection.rules_version == PIPELINE.rules_version


def test_zero_temperature_is_greedy_and_not_the_default() -> None:
    assert of(run(stage("responses", temperature=0)), "responses").temperature == 0


@pytest.mark.parametrize(
    ("stages", "changes"),
    [
        ([stage("responses", attempts=10, temperature=0.7, top_p=1, round_size=2)], {}),
        ([stage("responses"), stage("concepts", prefix_groups=32)], {}),
        ([stage("responses", model=pb.ModelChoice(model="m"))], {}),
        (
            [
                stage(
                    "instructions",
                    properties=[
                        drawn("language", "Python"),
                        drawn("difficulty"),
                        drawn("category", "function", "function", "class", "program"),
                    ],
                )
            ],
            {},
        ),
        ([], {"pipeline": "selfcodealign", "few_shot_set": "selfcodealign"}),
        ([], {"execution": pb.ExecutionSettings(profile="default", runs=1)}),
        ([], {"selection": pb.SelectionSettings(strategy="first-pass", near_duplicate_threshold=0.7)}),
        ([], {"name": "a name", "rejudges": "another run"}),
        ([], {"target": pb.Target()}),
    ],
)
def test_a_setting_that_equals_its_default_is_the_run_without_it(
    stages: Sequence[pb.StageSettings], changes: dict[str, object]
) -> None:
    assert run_records(run(*stages, **changes))[1].id == run_records(run())[1].id


@pytest.mark.parametrize(
    ("stages", "changes"),
    [
        ([stage("responses", attempts=11)], {}),
        ([stage("responses", model=pb.ModelChoice(model="teacher"))], {}),
        ([stage("responses", unpooled=True)], {}),
        ([stage("instructions", properties=[drawn("category", "class")])], {}),
        ([], {"seed": 1}),
        ([], {"few_shot_set": "nano"}),
        ([], {"selection": pb.SelectionSettings(strategy="everything")}),
        ([], {"execution": pb.ExecutionSettings(image_digest="sha256:1")}),
        ([], {"execution": pb.ExecutionSettings(limits=sb.Limits(wall_seconds=3))}),
    ],
)
def test_another_setting_is_another_run(stages: Sequence[pb.StageSettings], changes: dict[str, object]) -> None:
    assert run_records(run(*stages, **changes))[1].id != run_records(run())[1].id


def test_every_wrong_field_is_named_at_once() -> None:
    found = violations(
        stage("responses", attempts=1000, top_p=2, temperature=3, max_tokens=-1, round_size=-1, prefix_groups=-1),
        stage("concepts", few_shots=22, unpooled=True, prefix_groups=3),
        stage("respones"),
        stage("concepts"),
        stage("execution"),
        stage("instructions", properties=[drawn("dificulty", "easy"), drawn("category", "class", "functions")]),
        seeds=pb.SeedSelection(limit=-1),
        execution=pb.ExecutionSettings(runs=11),
        few_shot_set="nan",
        selection=pb.SelectionSettings(
            near_duplicates="similar", strategy="first-fail", near_duplicate_threshold=2, tests_in_instruction=1.5
        ),
    )
    assert set(found) == {
        "config.stages[0].attempts",
        "config.stages[0].top_p",
        "config.stages[0].temperature",
        "config.stages[0].max_tokens",
        "config.stages[0].round_size",
        "config.stages[0].prefix_groups",
        "config.stages[1].prefix_groups",
        "config.stages[2].stage",
        "config.stages[3].stage",
        "config.stages[4].stage",
        "config.stages[5].properties[0].name",
        "config.stages[5].properties[1].values[1]",
        "config.seeds.limit",
        "config.execution.runs",
        "config.few_shot_set",
        "config.selection.near_duplicates",
        "config.selection.strategy",
        "config.selection.near_duplicate_threshold",
        "config.selection.tests_in_instruction",
    }
    for field, said in (
        ("config.stages[2].stage", "did you mean 'responses'? valid: concepts, instructions, responses"),
        ("config.stages[3].stage", "already set in stages[1]"),
        ("config.stages[4].stage", "'execution' is not generated by a model"),
        ("config.stages[5].properties[0].name", "did you mean 'difficulty'?"),
        ("config.stages[5].properties[1].values[1]", "did you mean 'function'? valid: function, class, program"),
        ("config.few_shot_set", "did you mean 'nano'? valid: selfcodealign, nano"),
        ("config.selection.near_duplicates", "valid: similarity, band-collision"),
        ("config.selection.strategy", "did you mean 'first-pass'?"),
    ):
        assert said in found[field]


def test_an_unknown_pipeline_is_named_with_all_that_does_not_depend_on_it() -> None:
    found = violations(stage("anything"), pipeline="selfcodalign", execution=pb.ExecutionSettings(runs=11))
    assert set(found) == {"config.pipeline", "config.execution.runs"}
    assert "did you mean 'selfcodealign'?" in found["config.pipeline"]


def test_more_examples_than_the_set_has_are_refused_where_they_are_asked_for() -> None:
    found = violations(stage("concepts"), stage("responses", few_shots=22))
    assert found == {
        "config.stages[1].few_shots": "stage 'responses' is set to 22 few-shot examples; must be from 1 to 21"
    }


def test_a_collection_of_seeds_must_be_named() -> None:
    with pytest.raises(InvalidArgument, match=r"config\.seeds\.collection"):
        with_defaults(pb.Run())


@pytest.fixture
def unexecuted(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a pipeline without execution."""

    class Rows(RowSelection):
        parent = "responses"

    stages = (*PIPELINE.stages[:4], Rows())
    made = replace(PIPELINE, name="unexecuted", stages=stages)
    known = {PIPELINE.name: PIPELINE, made.name: made}
    monkeypatch.setattr(pipelines, "_pipelines", lambda: known)
    return made.name


def test_what_needs_an_execution_is_refused_where_there_is_none(unexecuted: str) -> None:
    found = violations(
        pipeline=unexecuted,
        execution=pb.ExecutionSettings(profile="default"),
        selection=pb.SelectionSettings(strategy="failures-only"),
    )
    assert set(found) == {"config.execution", "config.selection.strategy"}


def test_a_run_without_execution_has_no_settings_and_no_configuration_for_it(unexecuted: str) -> None:
    ready = run(pipeline=unexecuted)
    assert not ready.HasField("execution")
    assert list(stage_configs(ready)) == ["seeds", *WRITING, ROW_RULES, "selection"]


def test_configurations_bear_the_stages_names() -> None:
    configs = stage_configs(run())
    assert list(configs) == ["seeds", *WRITING, "execution", ROW_RULES, "selection"]
    names = [record.stage_config.name for record in configs.values()]
    assert names == ["seed-rules", *WRITING, "execution", "row-rules", "selection"]
    samplings = [configs.sampling(name) for name in WRITING]
    assert {record.stage_config.name for record in samplings} == {"sampling"}
    assert {record.id for record in configs.all()} == {record.id for record in [*configs.values(), *samplings]}


def test_a_verdicts_configuration_holds_what_judged() -> None:
    execution = pb.ExecutionSettings(
        image_digest="sha256:1", python_version="3.11.9", limits=sb.Limits(wall_seconds=3), runs=2
    )
    settings = json.loads(stage_configs(run(execution=execution))["execution"].stage_config.settings_json)
    assert settings == {
        "profile": "default",
        "runs": 2,
        "limits": {"wall_seconds": 3.0},
        "image_digest": "sha256:1",
        "python_version": "3.11.9",
        "version": 1,
    }


def test_the_strategy_for_near_duplicates_is_part_of_what_seeds_and_rows_depend_on() -> None:
    one = stage_configs(run())
    two = stage_configs(run(selection=pb.SelectionSettings(near_duplicates="band-collision")))
    assert one["seeds"].id != two["seeds"].id
    assert one["selection"].id != two["selection"].id
    assert one["responses"].id == two["responses"].id


def test_another_run_shares_the_stages_whose_settings_are_equal() -> None:
    one, two = stage_configs(run()), stage_configs(run(stage("responses", max_tokens=99)))
    assert one["concepts"].id == two["concepts"].id
    assert one["responses"].id != two["responses"].id
    more = stage_configs(run(stage("responses", attempts=20)))
    assert one["responses"].id == more["responses"].id, "drawing more attempts must not draw the first ones again"


def test_records_depend_on_how_completions_are_read_and_what_was_written_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs, draws, before = stage_configs(run()), [draws_id(run(), name) for name in WRITING], run_records(run())
    monkeypatch.setattr(sections, "READING", sections.READING + 1)
    read = stage_configs(run())
    assert all(read[name].id != configs[name].id for name in WRITING)
    assert all(read.sampling(name) == configs.sampling(name) for name in WRITING)
    assert [draws_id(run(), name) for name in WRITING] == draws
    assert run_records(run())[1].id != before[1].id


def test_a_stages_version_is_part_of_its_records_and_of_the_run_and_not_of_what_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs, draws, before = stage_configs(run()), [draws_id(run(), name) for name in WRITING], run_records(run())
    monkeypatch.setattr(Responses, "VERSION", Responses.VERSION + 1)
    later = stage_configs(run())
    assert later["responses"].id != configs["responses"].id
    assert later["concepts"] == configs["concepts"]
    assert all(later.sampling(name) == configs.sampling(name) for name in WRITING)
    assert [draws_id(run(), name) for name in WRITING] == draws
    assert run_records(run())[1].id != before[1].id


@pytest.mark.parametrize("judging", [SeedFunctions, ResponseExecution, RowSelection])
def test_the_version_of_a_stage_that_judges_is_part_of_its_records_and_of_the_run(
    monkeypatch: pytest.MonkeyPatch, judging: type[Stage]
) -> None:
    configs, before = stage_configs(run()), run_records(run())
    monkeypatch.setattr(judging, "VERSION", judging.VERSION + 1)
    assert stage_configs(run())[judging.name].id != configs[judging.name].id
    assert run_records(run())[1].id != before[1].id


def test_the_rules_version_is_part_of_their_configurations_and_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    configs, before = stage_configs(run()), run_records(run())
    monkeypatch.setattr(version, "VERSION", version.VERSION + 1)
    later = stage_configs(run())
    changed = {name for name in configs if later[name].id != configs[name].id}
    assert changed == {"seeds", ROW_RULES, "selection"}
    assert run_records(run())[1].id != before[1].id


def test_draws_depend_on_all_that_the_prompts_and_the_model_depend_on() -> None:
    changes: list[tuple[list[pb.StageSettings], dict[str, object]]] = [
        ([], {}),
        ([], {"seed": 1}),
        ([], {"few_shot_set": "nano"}),
        ([], {"model": pb.ModelChoice(revision="other")}),
        ([stage("responses", temperature=0.1)], {}),
        ([stage("responses", few_shots=2)], {}),
        ([stage("responses", unpooled=True)], {}),
        ([stage("instructions", properties=[drawn("difficulty", "hard")])], {}),
    ]
    found = [draws_id(run(*stages, **fields), "responses") for stages, fields in changes]
    assert len(set(found)) == len(found)


def test_a_stage_may_have_a_model_of_its_own() -> None:
    teacher = run(stage("responses", model=pb.ModelChoice(model="t", revision="x")))
    assert model_of(teacher, "responses").model == "t"
    assert model_of(teacher, "concepts").model == "m"
    revisions = [json.loads(stage_configs(teacher).sampling(name).stage_config.settings_json) for name in WRITING]
    assert [settings["model_revision"] for settings in revisions] == ["r", "r", "x"]


def test_orderings_are_fixed_by_seed_stage_and_group() -> None:
    def names(seed: int, name: str) -> list[str]:
        return [shot.name for shot in FEW_SHOTS.ordering("selfcodealign", seed, name, "0", 8)]

    first = names(0, "concepts")
    assert len(set(first)) == 8
    assert first == names(0, "concepts")
    assert first not in (names(1, "concepts"), names(0, "responses"))


@pytest.mark.parametrize("name", ["\0", "a\nb", "n" * 201])
def test_names_that_the_store_or_a_screen_cannot_hold_are_refused(name: str) -> None:
    assert violations(name=name) == {"config.name": "must be at most 200 printable characters"}
    wrong = violations(seeds=pb.SeedSelection(collection=name))
    assert list(wrong) == ["config.seeds.collection"]


@pytest.mark.parametrize("target", [{"rows": 5}, {"tokens": 5}, {"device_hours": 0.5}, {"rows": 5, "window": 9}])
def test_a_target_is_part_of_the_runs_identity(target: dict[str, Any]) -> None:
    ready = run(target=pb.Target(**target))
    assert run_records(ready)[1].id != run_records(run())[1].id
    assert ready.target.window == target.get("window", 512)
    assert ready.target.devices == (1 if "device_hours" in target else 0)
    assert with_defaults(ready) == ready
    assert draws_id(ready, "responses") == draws_id(run(), "responses"), "the draws themselves are the same"


@pytest.mark.parametrize(
    ("target", "path", "text"),
    [
        ({"rows": 0}, "rows", "is 0; must be above 0"),
        ({"rows": -4}, "rows", "is -4; must be above 0"),
        ({"tokens": -1}, "tokens", "must be above 0"),
        ({"device_hours": 0.0}, "device_hours", "is 0; must be above 0"),
        ({"device_hours": math.nan}, "device_hours", "is nan; must be above 0"),
        ({"device_hours": math.inf}, "device_hours", "is inf; must be"),
        ({"rows": 3, "devices": 2}, "devices", "has no effect without `device_hours`"),
        ({"device_hours": 1.0, "devices": -2}, "devices", "must be positive"),
        ({"window": 8}, "window", "has no effect without a target"),
        ({"rows": 3, "window": 70_000}, "window", "must be from 1 to 65,536"),
        ({"rows": 3, "window": -1}, "window", "must be from 1 to 65,536"),
    ],
)
def test_a_bad_target_is_named(target: dict[str, Any], path: str, text: str) -> None:
    assert text in violations(target=pb.Target(**target))[f"config.target.{path}"]
