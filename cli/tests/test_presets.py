"""Presets: what they fill in, what wins over them, and the errors for invalid files."""

from __future__ import annotations

from pathlib import Path

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli import presets
from codealign.cli.failures import Failure
from codealign.cli.options import preset_options
from codealign.cli.run_config import RunChoices, loop_choices, run_config
from codealign.cli.stack import Options
from codealign.coordinator import pipelines
from codealign.coordinator.runs.config import with_defaults


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_that_comes_with_us_works(name: str, pipeline: api.Pipeline) -> None:
    assert run_config(RunChoices(preset=name), "seeds", "m", pipeline).model.model == "m"
    loop = loop_choices(name, "evaluation", training.TrainingSpec(), (), None)
    assert all(evaluation.benchmarks for evaluation in loop.evaluations)
    assert presets.known_by(run_config(RunChoices(preset=name), "seeds", "m", pipeline)) == name


@pytest.mark.parametrize("pipeline_name", pipelines.names())
@pytest.mark.parametrize("name", presets.names())
def test_every_preset_fits_every_pipeline_that_the_coordinator_has(name: str, pipeline_name: str) -> None:
    described = pipelines.describe(pipelines.get(pipeline_name))
    given = run_config(RunChoices(preset=name, pipeline=pipeline_name), "seeds", "m", described)
    given.model.revision = "ab" * 32
    run = with_defaults(given)
    assert run.pipeline == pipeline_name
    if not described.few_shot_sets:  # no model writes, and a preset says hardly anything about the rest
        assert not run.few_shot_set
        return
    assert presets.known_by(run) == name
    assert run.few_shot_set == (name if name in described.few_shot_sets else described.few_shot_sets[0])


def test_nano_brings_its_model_its_seeds_and_its_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    nano = presets.load("nano")
    assert list(Path(nano.source("benchmarks")).glob("*.jsonl"))
    assert list(Path(nano.source("seeds")).glob("*.py"))
    options = preset_options(nano, Options())
    assert (Path(options.model) / "model.safetensors").is_file()
    assert options.benchmarks == Path(nano.source("benchmarks"))
    environment = options.inference()
    assert environment["CODEALIGN_INFERENCE_DTYPE"] == "float64"
    assert environment["CODEALIGN_INFERENCE_MODEL_NAME"] == "nano"
    monkeypatch.setenv("CODEALIGN_INFERENCE_SLOTS", "7")
    assert "CODEALIGN_INFERENCE_SLOTS" not in options.inference(), "what the environment says is not overridden"


def test_a_further_model_of_a_preset_has_the_presets_settings() -> None:
    nano = presets.load("nano")
    options = preset_options(nano, Options(model="teacher"))
    assert (Path(options.model) / "model.safetensors").is_file()
    assert options.model != preset_options(nano, Options()).model
    environment = options.inference()
    assert environment["CODEALIGN_INFERENCE_DTYPE"] == "float64"
    assert environment["CODEALIGN_INFERENCE_MODEL_NAME"] == "teacher"


def test_a_presets_settings_do_not_follow_another_model(tmp_path: Path) -> None:
    options = preset_options(presets.load("nano"), Options(model=str(tmp_path)))
    assert options.inference() == {"CODEALIGN_INFERENCE_MODEL": str(tmp_path), "OMP_WAIT_POLICY": "PASSIVE"}


def test_what_is_chosen_wins(pipeline: api.Pipeline) -> None:
    chosen = RunChoices(preset="nano", attempts=2, temperature=0.3, max_tokens=99, prefix_groups=3, limit=5)
    config = run_config(chosen, "seeds", "m", pipeline)
    concepts, instructions, responses = config.stages
    assert (responses.stage, responses.attempts, responses.max_tokens) == ("responses", 2, 99)
    assert (instructions.attempts, instructions.max_tokens, config.seeds.limit) == (0, 96, 5)
    assert [stage.prefix_groups for stage in config.stages] == [3, 3, 3]
    assert concepts.temperature == responses.temperature == 0.3
    assert config.few_shot_set == "nano"
    loop = loop_choices("nano", "evaluation", training.TrainingSpec(learning_rate=5.0), ("mbpp",), 7)
    assert loop.training.learning_rate == 5.0
    assert loop.training.batch_size == presets.load("nano").training["batch_size"]
    assert [(list(one.benchmarks), one.limit) for one in loop.evaluations] == [(["mbpp"], 7), (["mbpp"], 7)]
    assert [one.samples for one in loop.evaluations] == [5, 1]


def test_a_preset_of_ones_own(tmp_path: Path, pipeline: api.Pipeline) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run: {stages: {responses: {attempts: 3}}}\ntraining: {epochs: 2}\n")
    assert run_config(RunChoices(preset=str(file)), "seeds", "m", pipeline).stages[0].attempts == 3
    assert loop_choices(str(file), "training", training.TrainingSpec(), (), None).training.epochs == 2


def test_of_a_preset_another_pipeline_gets_what_it_has(pipeline: api.Pipeline) -> None:
    del pipeline.stages[1]  # no concepts
    pipeline.stages[1].ClearField("properties")
    pipeline.few_shot_sets[:] = ["own"]
    config = run_config(RunChoices(preset="nano", pipeline="other"), "seeds", "m", pipeline)
    assert [stage.stage for stage in config.stages] == ["instructions", "responses"]
    assert (config.pipeline, config.few_shot_set, len(config.stages[0].properties)) == ("other", "", 0)
    assert config.stages[0].max_tokens == 96
    with pytest.raises(Failure, match="--difficulty: no stage of pipeline selfcodealign draws a difficulty"):
        run_config(RunChoices(difficulties=("easy",)), "seeds", "m", pipeline)


def test_a_run_file_wins_over_the_preset_and_is_not_fitted(pipeline: api.Pipeline) -> None:
    file = {"stages": {"responses": {"attempts": 9}, "unheard-of": {"attempts": 1}}, "seed": 4, "name": "filed"}
    config = run_config(RunChoices(preset="nano", file=file), "seeds", "m", pipeline)
    stages = {stage.stage: stage for stage in config.stages}
    assert (stages["responses"].attempts, stages["responses"].max_tokens) == (9, 320)
    assert "unheard-of" in stages, "the coordinator says what is wrong with it"
    assert (config.seed, config.name) == (4, "filed")
    over = run_config(RunChoices(preset="nano", file=file, attempts=2, seed=7, name="chosen"), "seeds", "m", pipeline)
    assert [stage.attempts for stage in over.stages if stage.stage == "responses"] == [2]
    assert (over.seed, over.name) == (7, "chosen")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {}", "line 1: runs: unknown; did you mean run? valid: model, seeds, benchmarks"),
        ("- a", "line 1: must be a mapping, is a list"),
        ("a: [", "is not YAML"),
        ("run: 3", "line 1: run: must be a mapping, is '3'"),
        ("run: {few_shot: 3}", "run.few_shot: unknown; did you mean few_shot_set? valid: name, pipeline"),
        (
            "run: {stages: {responses: {few_shot: 3}}}",
            "run.stages.responses.few_shot: unknown; did you mean few_shots?",
        ),
        ("training: {rate: 3}", "training.rate: unknown; valid: name, learning_rate"),
        ("training: {epochs: two}", "training.epochs: must be a number, is 'two'"),
        ("evaluations: [{benchmarks: mbpp}]", "evaluations[0].benchmarks: must be a list, is 'mbpp'"),
        ("evaluations: [3]", "evaluations[0]: must be a mapping, is '3'"),
        ("model: 3", "model: must be a string, is '3'"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yml"
    file.write_text(text)
    with pytest.raises(Failure) as caught:
        loop_choices(str(file), "evaluation", training.TrainingSpec(), (), None)
    assert message in caught.value.message


def test_a_package_that_is_not_installed(tmp_path: Path) -> None:
    preset = presets.Preset("mine", seeds="no.such:seeds", model="codealign.cli:no", benchmarks="s3://bucket/tasks")
    with pytest.raises(Failure, match=r"--preset mine: seeds: no\.such:seeds does not exist: pip install no-such"):
        preset.source("seeds")
    with pytest.raises(Failure, match=r"model: codealign\.cli:no does not exist"):
        preset.source("model")
    assert preset.source("benchmarks") == "s3://bucket/tasks"


def test_a_preset_that_is_nowhere() -> None:
    with pytest.raises(Failure, match=r"unknown preset 'fast'; valid: default, nano, paper, small, or a file"):
        presets.load("fast")
    with pytest.raises(Failure, match=r"cannot read /no/such\.yaml"):
        presets.load("/no/such.yaml")


def test_every_mistake_of_a_file_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("run:\n  stages:\n    responses: {attemps: 3}\nmodle: x\ntraining: {epochs: [1]}\n")
    with pytest.raises(Failure) as caught:
        presets.load(str(file))
    told = caught.value.message.splitlines()[1:]
    assert [line.strip().partition(" unknown")[0].partition(" must")[0] for line in told] == [
        "line 3: run.stages.responses.attemps:",
        "line 4: modle:",
        "line 5: training.epochs:",
    ]
