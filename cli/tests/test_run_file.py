"""Run files: their form, and the errors for invalid files."""

from __future__ import annotations

from pathlib import Path

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.failures import Failure
from codealign.cli.refusals import refusal
from codealign.cli.run_file import RunFile, from_run, merged, read_run, to_run

WHOLE = """
name: mine
pipeline: selfcodealign
model: org/base
seeds: {collection: stdlib, limit: 12}
seed: 7
stages:
  responses: {attempts: 6, temperature: 0, model: {model: teacher, revision: abc}}
  instructions:
    unpooled: true
    properties: {difficulty: [easy, hard], category: [function]}
execution: {limits: {wall_seconds: 5, memory_bytes: 1000000000}}
selection: {strategy: everything, tests_in_instruction: 0}
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    return file


def wrong(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(Failure) as caught:
        read_run("--config", write(tmp_path, text))
    first, *others = caught.value.message.splitlines()
    assert first.startswith(f"--config {tmp_path / 'run.yaml'}: ")
    return [line.strip() for line in others] or [first.partition("run.yaml: ")[2]]


def test_a_file_with_everything_is_the_run_that_it_says(tmp_path: Path) -> None:
    run = to_run(read_run("--config", write(tmp_path, WHOLE)).settings)
    assert run == pb.Run(
        name="mine",
        pipeline="selfcodealign",
        model=pb.ModelChoice(model="org/base"),
        seeds=pb.SeedSelection(collection="stdlib", limit=12),
        seed=7,
        stages=[
            pb.StageSettings(
                stage="instructions",
                unpooled=True,
                properties=[
                    pb.PropertyDraw(name="category", values=["function"]),
                    pb.PropertyDraw(name="difficulty", values=["easy", "hard"]),
                ],
            ),
            pb.StageSettings(
                stage="responses",
                attempts=6,
                temperature=0.0,
                model=pb.ModelChoice(model="teacher", revision="abc"),
            ),
        ],
        execution=pb.ExecutionSettings(limits=sb.Limits(wall_seconds=5, memory_bytes=10**9)),
        selection=pb.SelectionSettings(strategy="everything", tests_in_instruction=0.0),
    )
    assert run.stages[1].HasField("temperature"), "0 is not the default"


def test_what_is_written_back_is_the_same_run(tmp_path: Path) -> None:
    run = to_run(read_run("--config", write(tmp_path, WHOLE)).settings)
    assert to_run(from_run(run)) == run
    run.stages[0].version = 3
    run.execution.image_digest = "sha256:ab"
    assert "version" not in from_run(run)["stages"]["instructions"]
    assert "image_digest" not in from_run(run)["execution"]


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert to_run(read_run("--config", write(tmp_path, "# nothing\n")).settings) == pb.Run()
    assert to_run(read_run("--config", write(tmp_path, "stages:\nselection:\n")).settings) == pb.Run(
        selection=pb.SelectionSettings()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pipelin: x", "line 1: pipelin: unknown; did you mean pipeline? valid: name, pipeline, seeds, model"),
        ("stages: {a: {round: 2}}", "line 1: stages.a.round: unknown; did you mean round_size?"),
        ("selection: {random_pass: true}", "line 1: selection.random_pass: unknown; valid:"),
        ("selection: {rules_version: 3}", "line 1: selection.rules_version: unknown; valid:"),
        ("rejudges: ab", "line 1: rejudges: unknown"),
        ("stages: {a: {version: 3}}", "line 1: stages.a.version: unknown"),
        ("seed: x", "line 1: seed: must be a whole number, is 'x'"),
        ("seed: true", "line 1: seed: must be a whole number, is 'true'"),
        ("seed: 99999999999999999999", "line 1: seed: 99999999999999999999 is too large"),
        ("stages: {a: {attempts: 3000000000}}", "line 1: stages.a.attempts: 3000000000 is too large"),
        ('name: "a\\ud800"', "line 1: name: has half of a UTF-16 pair"),
        ('stages: {"\\ud800": {attempts: 1}}', "line 1: stages: has half of a UTF-16 pair"),
        ('seed: "\\ud800"', "line 1: seed: must be a whole number, is '\\ud800'"),
        ("stages: {a: {temperature: .inf}}", "line 1: stages.a.temperature: must be a number, is '.inf'"),
        (f"stages: {{a: {{temperature: 1{'0' * 400}}}}}", f"line 1: stages.a.temperature: 1{'0' * 400} is too large"),
        ("stages: {a: {unpooled: 1}}", "line 1: stages.a.unpooled: must be true or false, is '1'"),
        ("stages: [a]", "line 1: stages: must be a mapping, is a list"),
        ("stages: {a: 3}", "line 1: stages.a: must be a mapping, is '3'"),
        ("stages: {a: {properties: {difficulty: easy}}}", "stages.a.properties.difficulty: must be a list, is 'easy'"),
        ("stages: {a: {properties: {difficulty: [1]}}}", "stages.a.properties.difficulty: must be a string, is '1'"),
        ("model: [a]", "line 1: model: must be a mapping, is a list"),
        ("name: !!python/name:os.system x", "line 1: could not determine a constructor"),
        ("name: 2024-13-45", "line 1:"),
        ("[a]: 3", "line 1: a key must be a word, is a list"),
        ("name: a\nname: b", "line 2: name: duplicate key (first on line 1)"),
        ("name: [", "is not YAML"),
        ("- a", "line 1: must be a mapping, is a list"),
        ("a: &a {b: *a}", "line 1: a: unknown"),
        ("stages: &a {b: *a}", "line 1: stages.b.b: unknown"),
        ("stages: {a: {temperature: .nan}}", "line 1: stages.a.temperature: must be a number, is '.nan'"),
        ("stages: {a: {top_p: -.inf}}", "line 1: stages.a.top_p: must be a number, is '-.inf'"),
        ("name: \x00", "is not YAML"),
        ("name: " + "[" * 5000, "is nested too deeply"),
        ("seed: " + "{a: " * 3000 + "1" + "}" * 3000, "is nested too deeply"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong_and_where(tmp_path: Path, text: str, message: str) -> None:
    (told,) = wrong(tmp_path, text)
    assert message in told


def test_every_mistake_is_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = WHOLE.replace("attempts", "atempts").replace("strategy", "stratgy").replace("seed: 7", "seed: seven")
    told = wrong(tmp_path, text)
    assert [line.split(":")[0] for line in told] == ["line 6", "line 8", "line 13"]
    assert "did you mean attempts?" in told[1]
    assert "did you mean strategy?" in told[2]


def test_stages_and_properties_that_the_pipeline_does_not_have_are_told_with_their_lines(
    tmp_path: Path, pipeline: api.Pipeline
) -> None:
    text = """
seed: seven
stages:
  respones: {attempts: 3}
  execution: {attempts: 3}
  instructions:
    properties: {dificulty: [easy]}
  responses:
    properties: {difficulty: [easy]}
"""
    with pytest.raises(Failure) as caught:
        read_run("--config", write(tmp_path, text), pipeline)
    told = caught.value.message.splitlines()[1:]
    known = "valid: concepts, instructions, responses"
    assert [line.strip() for line in told] == [
        "line 2: seed: must be a whole number, is 'seven'",
        f"line 4: stages.respones: unknown; did you mean responses? {known}",
        f"line 5: stages.execution: unknown; {known}",
        "line 7: stages.instructions.properties.dificulty: unknown; did you mean difficulty? "
        "valid: category, difficulty",
        "line 9: stages.responses.properties.difficulty: unknown; valid: none",
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="--config: cannot read /no/such"):
        read_run("--config", Path("/no/such.yaml"))
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(Failure, match="--config: cannot read"):
        read_run("--config", tmp_path / "run.yaml")


def test_what_the_coordinator_refuses_is_told_in_the_words_of_the_file(tmp_path: Path) -> None:
    file = read_run("--config", write(tmp_path, WHOLE))
    run = to_run(file.settings)
    violations = [
        ("config.stages[1].attempts", "must be from 1 to 256"),
        ("config.stages[0].properties[1].values[0]", "unknown difficulty"),
        ("config.stages[1].stage", "unknown stage"),
        ("config.stages[0].few_shots", "is no line of the file's own, but its stage has one"),
        ("config.selection.near_duplicates", "is not in the file"),
        ("loop.training.epochs", "is no run's"),
    ]
    where = f"(--config {tmp_path / 'run.yaml'}, line"
    assert refusal(run, violations, file).message.splitlines() == [
        "invalid run settings: ",
        f"  stages.responses.attempts: must be from 1 to 256 {where} 8)",
        f"  stages.instructions.properties.difficulty: unknown difficulty {where} 11)",
        f"  stages.responses: unknown stage {where} 8)",
        f"  stages.instructions.few_shots: is no line of the file's own, but its stage has one {where} 9)",
        "  selection.near_duplicates: is not in the file",
        "  loop.training.epochs: is no run's",
    ]
    assert refusal(run, violations[:1], RunFile()).message == (
        "invalid run settings: stages.responses.attempts: must be from 1 to 256"
    )


def test_of_two_configurations_the_second_wins_key_by_key() -> None:
    under = {"stages": {"a": {"attempts": 1, "properties": {"x": ["p"]}}, "b": {}}, "seed": 1}
    over = {"stages": {"a": {"properties": {"x": ["q"], "y": ["r"]}}}, "seed": 0}
    assert merged(under, over) == {
        "stages": {"a": {"attempts": 1, "properties": {"x": ["q"], "y": ["r"]}}, "b": {}},
        "seed": 0,
    }
