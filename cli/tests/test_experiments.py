"""Experiment files and presets: their form, mistakes with their places, and what is sent to the coordinator."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2_grpc as api_grpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.cli import experiments
from codealign.cli.connection import Connection
from codealign.cli.experiment_config import OWN, Choices, build, chosen, count_tokens, validated
from codealign.cli.experiment_plan import gpu_hours, measured, sizes, tokens
from codealign.cli.failures import Failure
from codealign.common.health import Readiness
from codealign.coordinator import pipelines
from codealign.coordinator.main import wire
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.settings import CoordinatorSettings
from fakes import FakeServices, toys
from fakes.following import EVALUATION_LIMITS

WHOLE = """
name: mine
preset: nano
functions: stdlib
n: 20
seeds: [0, 5]
models: {other: org/other}
run: {selection: {tests_in_instruction: 0}, stages: {responses: {attempts: 3}}}
training: {epochs: 2}
evaluations:
  - {benchmarks: [nanoeval], samples: 3, temperature: 0.5}
arms:
  - base
  - {name: own, strategy: random-pass, run: {stages: {responses: {attempts: 4}}}}
  - {name: theirs, generator: other, rows: 7, training: {learning_rate: 0.5}}
  - {name: other base, untrained: true, model: other}
claims:
  - {statement: Own is better., better: own, than: theirs, benchmark: nanoeval, source: Table 8}
"""
MODELS = {
    OWN: inf.Model(name="nano", revision="r1", source="/models/nano"),
    "other": inf.Model(name="big-7b", revision="r2", source="org/other"),
    "teacher": inf.Model(name="big-7b", revision="r2", source="org/other"),
}
Serving = Callable[..., Callable[[], AbstractAsyncContextManager[Connection]]]


@pytest.fixture
def coordinator(serving: Serving, tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Connection]]:
    """A connection to a coordinator over fakes that has the benchmark and the collection `seeds`."""
    row = {
        "task_id": "NanoEval/0",
        "prompt": "def add(x):\n",
        "entry_point": "add",
        "canonical_solution": "    return x\n",
        "base_input": [[1]],
        "plus_input": [[2]],
        "atol": 0,
    }
    (tmp_path / "NanoEval.jsonl").write_text(json.dumps(row) + "\n")
    services = FakeServices()
    services.dataset.put(*toys.seeds(120), collection=toys.SEEDS)
    services.sandbox.runner.profile_limits[0].maxima.MergeFrom(EVALUATION_LIMITS)
    services.inference.models.clear()
    for model in MODELS.values():
        services.inference.add_model(model.name, model.revision, source=model.source)
    settings = CoordinatorSettings(
        dataset_address="-",
        inference_address="-",
        sandbox_address="-",
        training_address="-",
        evaluation_data=tmp_path,
    )
    _, servicer = wire(settings, services.services, BenchmarkTexts(), Readiness())
    return serving(coordinator=lambda server: api_grpc.add_CoordinatorServiceServicer_to_server(servicer, server))


@contextlib.asynccontextmanager
async def built(
    connected: Callable[[], AbstractAsyncContextManager[Connection]], file: experiments.ExperimentFile
) -> AsyncIterator[tuple[Connection, pb.Experiment]]:
    async with connected() as connection:
        yield connection, await build(connection, file, MODELS, toys.SEEDS)


def wrong(text: str) -> list[str]:
    with pytest.raises(Failure) as caught:
        experiments.parse("mine.yaml", text)
    first, *others = caught.value.message.splitlines()
    assert first.startswith("mine.yaml: ")
    return [line.strip() for line in others] or [first.removeprefix("mine.yaml: ")]


async def test_a_file_with_everything_is_the_experiment_that_it_says(coordinator: Any) -> None:
    file = chosen(experiments.parse("mine.yaml", WHOLE), Choices())
    async with built(coordinator, file) as (connection, given):
        found = await validated(connection, file, given)
    assert (found.name, list(found.seeds), len(found.models)) == ("mine", [0, 5], 2)
    base, own, theirs, other = found.arms
    assert not base.HasField("run")
    assert (own.run.selection.strategy, own.run.model.model, own.rows) == ("random-pass", "nano", 0)
    assert (own.run.few_shot_set, own.run.seeds.limit, own.run.selection.tests_in_instruction) == ("nano", 20, 0)
    assert {stage.stage: stage.attempts for stage in own.run.stages}["responses"] == 4
    assert {stage.stage: stage.attempts for stage in theirs.run.stages}["responses"] == 3
    assert (theirs.model, theirs.run.model.model, theirs.rows) == ("nano", "big-7b", 7)
    assert {stage.model.model for stage in theirs.run.stages} == {""}, "every stage has the run's model"
    assert (theirs.training.epochs, theirs.training.learning_rate, theirs.training.batch_size) == (2, 0.5, 16)
    assert (other.model, other.HasField("run")) == ("big-7b", False)
    (settings,) = found.evaluations
    assert (list(settings.benchmarks), settings.samples, settings.max_tokens) == (["nanoeval"], 3, 1024)
    assert found.claims[0].source == "Table 8"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\narms: [base]\nclams: []", ["line 3: clams: unknown; did you mean claims? valid: name"]),
        ("name: x\narms:\n  - {name: a, strateg: b}", ["line 3: arms[0].strateg: unknown; did you mean strategy?"]),
        ("name: x\narms:\n  - {strategy: b}", ["line 3: arms[0].name: must be set"]),
        ("name: x\narms: [base, base]", ["line 2: arms[1].name: duplicate arm 'base'"]),
        ("name: x\narms: [{name: 5 rows}]\nmatrix: {rows: [5]}", ["line 3: matrix.name: duplicate arm '5 rows'"]),
        ("name: x\narms: [passes]", ["line 2: arms[0]: must be a mapping, is 'passes'"]),
        ("name: x\nmatrix: {rows: [a]}", ["line 2: matrix.rows[0]: must be a whole number, is 'a'"]),
        ("name: x\nmatrix: {rows: []}", ["line 2: matrix.rows: must be a list with one value at least"]),
        (
            f"name: x\nmatrix: {{rows: {[*range(1, 102)]}, strategy: {['a'] * 101}}}",
            ["line 2: matrix: has 10,201 combinations; at most 1,000"],
        ),
        (
            'name: x\narms: [base]\nclaims:\n  - {statement: "\\ud800", better: base, than: base}',
            ["UTF-16", "statement: must"],
        ),
        ("name: x\nmatrix: {row: [1]}", ["line 2: matrix.row: unknown; did you mean rows?"]),
        ("name: x\nseeds: 3\narms: [base]", ["line 2: seeds: must be a list, is '3'"]),
        (
            "name: x\nseeds: [0, 9223372036854775808]\narms: [base]",
            ["line 2: seeds[1]: 9223372036854775808 is too large"],
        ),
        ("name: x\nn: 2147483648\narms: [base]", ["line 2: n: 2147483648 is too large"]),
        ("name: x\nn: -1\narms: [base]", ["line 2: n: must not be negative, is -1; 0 takes all"]),
        ("name: x\narms:\n  - {name: a, rows: 9223372036854775808}", ["line 3: arms[0].rows: 92233720368547758"]),
        ("name: x\nmatrix: {rows: [9223372036854775808]}", ["line 2: matrix.rows[0]: 9223372036854775808 is too"]),
        ("name: x\narms:\n  - {name: a}\n  - {name: b, model: c}", ["line 4: arms[1].model: 'c' is not in `models`"]),
        ("name: x\narms:\n  - {name: a, generator: b}", ["line 3: arms[0].generator: 'b' is not in `models`"]),
        ("name: x\narms:\n  - {name: a, untrained: true, rows: 3}", ["arms[0].rows: must not be set for an arm that"]),
        ("name: x\narms: [base]\nclaims:\n  - {better: a, than: b}", ["line 4: claims[0].statement: must be set"]),
        ("name: x\narms:\n  - {name: a, run: {stages: {c: {x: 1}}}}", ["line 3: arms[0].run.stages.c.x: unknown"]),
        (
            "name: x\narms:\n  - base\n  - {name: passes, instructions_of: bas}\nclaims:\n"
            "  - {statement: s, better: pases, than: base}",
            [
                "line 4: arms[1].instructions_of: unknown arm 'bas'; did you mean base?",
                "line 6: claims[0].better: unknown",
            ],
        ),
        ("seeds: []", ["name: must be set", "arms: must be set, or `matrix`"]),
        ("", ["is empty; docs/experiments.md has the format"]),
        ("name: [", ["is not YAML"]),
    ],
)
def test_every_mistake_is_told_with_its_line_and_place(text: str, says: list[str]) -> None:
    found = wrong(text)
    assert len(found) == len(says)
    for part in says:
        assert any(part in line for line in found), found


def test_a_matrix_has_an_arm_for_every_combination_named_after_what_differs() -> None:
    file = experiments.parse("x", "name: x\nmatrix: {pipeline: [selfcodealign], strategy: [a, b], rows: [5, 9]}")
    assert [arm.name for arm in file.arms] == ["a, 5 rows", "a, 9 rows", "b, 5 rows", "b, 9 rows"]
    assert {(arm.pipeline, arm.place) for arm in file.arms} == {("selfcodealign", "matrix")}


async def test_everything_that_the_coordinator_finds_impossible_is_told_by_its_place_in_the_file(
    coordinator: Any,
) -> None:
    text = """
name: x
preset: nano
run: {stages: {respones: {attempts: 3}}}
arms:
  - {name: a, pipeline: selfcodealing, strategy: all}
  - {name: b, rows: 5000}
  - {name: c, instructions_of: d}
  - {name: d}
evaluations: [{benchmarks: [humanevl]}]
claims:
  - {statement: s, better: a, than: a}
"""
    file = chosen(experiments.parse("mine.yaml", text), Choices())
    async with built(coordinator, file) as (connection, given):
        with pytest.raises(Failure) as caught:
            await validated(connection, file, given)
    told = caught.value.message
    for part in (
        "line 6: arms[0].pipeline: unknown pipeline 'selfcodealing'; did you mean 'selfcodealign'?",
        "line 6: arms[0].strategy: unknown strategy 'all'",
        "arms[1].run.stages.respones: unknown stage 'respones'; did you mean 'responses'?",
        "line 8: arms[2].instructions_of: must name an arm with a run that is listed before it: a, b",
        "line 10: evaluations[0].benchmarks[0]: unknown benchmark 'humanevl'",
        "line 12: claims[0].than: must be another arm than `better`",
    ):
        assert part in told
    text = "name: x\npreset: nano\nn: 5\narms:\n  - {name: b, rows: 5000}\n"
    file = chosen(experiments.parse("mine.yaml", text), Choices())
    async with built(coordinator, file) as (connection, given):
        with pytest.raises(Failure, match=r"line 5: arms\[0\]\.rows: is 5,000; the run's seeds give at most 5 rows"):
            await validated(connection, file, given)


@pytest.mark.parametrize("name", experiments.names())
async def test_a_preset_is_possible_or_says_which_pipeline_is_not_there(name: str, coordinator: Any) -> None:
    file = experiments.load(name)
    file = chosen(file, Choices(models=dict.fromkeys(file.models, "org/other")))
    assert file.name == name
    missing = {arm.pipeline for arm in file.arms} - {"", *pipelines.names()}
    async with built(coordinator, file) as (connection, given):
        if not missing:
            found = await validated(connection, file, given)
            assert len(found.arms) == len(file.arms)
            return
        with pytest.raises(Failure) as caught:
            await validated(connection, file, given)
    for pipeline in missing:
        assert f"pipeline: unknown pipeline '{pipeline}'" in caught.value.message
    assert len(caught.value.message.splitlines()) <= 1 + len(missing)


async def test_the_forecast_counts_what_will_be_made(coordinator: Any) -> None:
    file = chosen(experiments.parse("mine.yaml", WHOLE), Choices())
    async with built(coordinator, file) as (connection, given):
        found = await validated(connection, file, given)
        plans = await count_tokens(connection, found)
        assert await measured(connection, found) == "", "no run has succeeded yet"
    (line,) = sizes(found)
    assert line == "4 arms for 2 seeds: 4 runs, 4 trainings, 8 evaluations; what exists is reused"
    assert "new tokens for data" in next(tokens(found, plans))
    told = gpu_hours(found, plans)
    assert told.startswith("estimate: ")
    assert "the paper's figures (4 A100, 37k seeds, CodeQwen1.5-7B: 7 h" in told
    assert "taken as 7B" in told, "nano's name has no size"


def test_options_win_over_the_file_and_every_model_must_have_a_source() -> None:
    file = experiments.load("table8")
    with pytest.raises(Failure, match=r"models\.other: has no source: pass --model other=SOURCE"):
        chosen(file, Choices("small"))
    with pytest.raises(Failure, match=r"models\.other: has no source"):
        chosen(file, Choices(models={OWN: "org/y"}))
    teacher = chosen(file, Choices()).models["other"]
    assert (Path(teacher) / "model.safetensors").is_file(), "nano's preset has another model"
    with pytest.raises(Failure, match=r"--model teacher=\.\.\.: table8 has no model 'teacher'; valid: other"):
        chosen(file, Choices(models={"teacher": "x"}))
    found = chosen(file, Choices("small", 9, (4,), "stdlib", {"other": "org/x", OWN: "org/y"}))
    assert (found.preset, found.n, list(found.seeds), found.functions) == ("small", 9, [4], "stdlib")
    assert found.models == {"other": "org/x"}
    with pytest.raises(Failure, match=r"unknown experiment 'tabel9'; valid: ablation, .*, or a file \(\.yaml\)"):
        experiments.load("tabel9")
    with pytest.raises(Failure, match=r"cannot read /no/file\.yaml"):
        experiments.load("/no/file.yaml")
