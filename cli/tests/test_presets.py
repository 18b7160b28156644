"""Presets: what they fill in, what wins over them, and what a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from codealign.cli import presets
from codealign.cli.failures import Failure
from codealign.cli.options import preset_options
from codealign.cli.run_config import RunChoices, loop_choices, run_config
from codealign.cli.stack import Options
from codealign.cli.tuning import TuningChoices


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_that_comes_with_us_works(name: str) -> None:
    assert run_config(RunChoices(preset=name), "seeds", "m").model.model == "m"
    loop = loop_choices(name, "evaluation", TuningChoices(), (), None)
    assert all(evaluation.benchmarks for evaluation in loop.evaluations)
    assert presets.known_by(run_config(RunChoices(preset=name), "seeds", "m")) == name


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


def test_a_presets_settings_do_not_follow_another_model(tmp_path: Path) -> None:
    options = preset_options(presets.load("nano"), Options(model=str(tmp_path)))
    assert options.inference() == {"CODEALIGN_INFERENCE_MODEL": str(tmp_path), "OMP_WAIT_POLICY": "PASSIVE"}


def test_what_is_chosen_wins() -> None:
    chosen = RunChoices(preset="nano", attempts=2, temperature=0.3, max_tokens=99, prefix_groups=3, limit=5)
    config = run_config(chosen, "seeds", "m")
    assert (config.responses.attempts, config.responses.max_tokens, config.seeds.limit) == (2, 99, 5)
    assert [stage.prefix_groups for stage in (config.concepts, config.instructions, config.responses)] == [3, 3, 3]
    assert config.concepts.temperature == config.responses.temperature == 0.3
    assert config.few_shot_set == "nano"
    loop = loop_choices("nano", "evaluation", TuningChoices(learning_rate=5.0), ("mbpp",), 7)
    assert loop.tuning.learning_rate == 5.0
    assert loop.tuning.batch_size == presets.load("nano").training["batch_size"]
    assert [(one.benchmarks, one.limit) for one in loop.evaluations] == [(("mbpp",), 7), (("mbpp",), 7)]
    assert [one.samples for one in loop.evaluations] == [10, 1]


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run: {responses: {attempts: 3}}\ntraining: {epochs: 2}\n")
    assert run_config(RunChoices(preset=str(file)), "seeds", "m").responses.attempts == 3
    assert loop_choices(str(file), "training", TuningChoices(), (), None).tuning.epochs == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {}", "unknown: runs; there are model, seeds, benchmarks"),
        ("- a", "unknown: no mapping"),
        ("a: [", "is no YAML"),
        ("run: 3", "run: must be a dict, is 3"),
        ("run: {few_shots: 3}", 'run: Message type "codealign.api.dataset.v1.Run" has no field named "few_shots"'),
        ("training: {rate: 3}", "training: unknown: rate; there are name, learning_rate"),
        ("training: {epochs: two}", "training: epochs: must be a float, is 'two'"),
        ("evaluations: [{benchmarks: mbpp}]", "evaluations[0]: benchmarks: must be a list, is 'mbpp'"),
        ("evaluations: [3]", "evaluations[0]: must be a mapping, is 3"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yml"
    file.write_text(text)
    with pytest.raises(Failure) as caught:
        loop_choices(str(file), "evaluation", TuningChoices(), (), None)
    assert message in caught.value.message


def test_a_package_that_is_not_installed(tmp_path: Path) -> None:
    preset = presets.Preset("mine", seeds="no.such:seeds", model="codealign.cli:no", benchmarks="s3://bucket/tasks")
    with pytest.raises(Failure, match=r"--preset mine: seeds: no\.such:seeds is not there: pip install no-such"):
        preset.source("seeds")
    with pytest.raises(Failure, match=r"model: codealign\.cli:no is not there"):
        preset.source("model")
    assert preset.source("benchmarks") == "s3://bucket/tasks"


def test_a_preset_that_is_nowhere() -> None:
    with pytest.raises(Failure, match=r"unknown preset 'fast'; there are default, nano, paper, small, or give a file"):
        presets.load("fast")
    with pytest.raises(Failure, match=r"cannot read /no/such\.yaml"):
        presets.load("/no/such.yaml")
