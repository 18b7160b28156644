"""Pipelines are validated on construction, discovered by directory, and described to clients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import ConfigurationError, InvalidArgument
from codealign.coordinator import pipelines
from codealign.coordinator.pipelines import few_shots
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.selfcodealign import PIPELINE
from codealign.coordinator.pipelines.selfcodealign.concepts import Concepts
from codealign.coordinator.pipelines.selfcodealign.execution import ResponseExecution
from codealign.coordinator.pipelines.selfcodealign.instructions import Instructions
from codealign.coordinator.pipelines.selfcodealign.responses import Responses
from codealign.coordinator.pipelines.selfcodealign.seeds import SeedFunctions
from codealign.coordinator.pipelines.selfcodealign.selection import RowSelection
from codealign.coordinator.pipelines.stage import Stage


def pipeline(*stages: Stage, name: str = "sound") -> Pipeline:
    return Pipeline(name, "For this test.", stages, PIPELINE.few_shots, "0")


class Evolved(Instructions):
    """Stage whose input and output have the same kind."""

    name = "evolved"
    parent = "instructions"


class Answers(Responses):
    name = "answers"
    parent = "evolved"


class Unexecuted(RowSelection):
    parent = "answers"


class Lost(Concepts):
    name = "lost"
    parent = "nowhere"


class Side(Concepts):
    name = "side"


class First(Concepts):
    name = "first"
    parent = "second"


class Second(Concepts):
    name = "second"
    parent = "first"


class OfSeeds(ResponseExecution):
    parent = "seeds"


class OfSelection(RowSelection):
    parent = "selection"


class Sampling(Concepts):
    name = "sampling"


def test_a_parent_and_a_child_may_be_of_one_kind_and_nothing_need_be_executed() -> None:
    made = pipeline(SeedFunctions(), Concepts(), Instructions(), Evolved(), Answers(), Unexecuted())
    assert made.execution is None
    assert made.candidates.name == "answers"
    assert [stage.name for stage in made.children(made.stage("instructions"))] == ["evolved"]
    assert made.seeds.name == "seeds"
    assert made.selection.name == "selection"


def test_where_nothing_is_written_the_root_s_records_are_the_candidates() -> None:
    made = Pipeline("unwritten", "A pipeline.", (SeedFunctions(), OfSeeds(), RowSelection()))
    assert made.candidates is made.seeds
    assert (made.writing, made.few_shots.names()) == ((), [])


def test_a_pipeline_that_writes_needs_few_shot_sets() -> None:
    with pytest.raises(ConfigurationError, match="its writing stages need few-shot sets"):
        Pipeline("unshown", "A pipeline.", WHOLE)


WHOLE = (SeedFunctions(), Concepts(), Instructions(), Responses(), ResponseExecution(), RowSelection())


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (WHOLE[1:], "no Seeds stage"),
        ((SeedFunctions(), *WHOLE), "2 Seeds stages (seeds, seeds), at most 1 allowed"),
        ((SeedFunctions(), *WHOLE), "duplicate stage name 'seeds' (2 stages)"),
        (WHOLE[:-1], "no Selection stage"),
        ((*WHOLE[:-2], WHOLE[-1], WHOLE[-2]), "the last stage must be a Selection, not 'execution'"),
        ((SeedFunctions(), RowSelection()), "stage 'selection': parent stage 'execution' does not exist"),
        ((*WHOLE[:1], Lost(), *WHOLE[1:]), "stage 'lost': parent stage 'nowhere' does not exist"),
        ((*WHOLE[:1], First(), Second(), *WHOLE[1:]), "cycle: first → second → first"),
        ((*WHOLE[:4], Side(), *WHOLE[4:]), "stage 'side' is a dead end"),
        ((*WHOLE[:4], OfSeeds(), WHOLE[-1]), "stage 'responses' is a dead end"),
        ((*WHOLE[:-1], OfSelection()), "its parent must be a Seeds or Writing or Execution stage, but 'selection' is"),
        ((*WHOLE[:1], Instructions(), Concepts(), *WHOLE[3:]), "stage 'instructions': must be listed after its parent"),
        ((*WHOLE[:4], Sampling(), *WHOLE[4:]), "stage 'sampling': this name is reserved"),
    ],
)
def test_what_is_no_tree_of_stages_is_refused(stages: tuple[Stage, ...], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        pipeline(*stages)
    assert "pipeline 'sound'" in str(caught.value)
    assert said in str(caught.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        pipeline(Lost(), First(), Second(), ResponseExecution(), name="Not sound")
    for said in ("its name must be", "no Seeds", "no Selection", "'nowhere'", "cycle", "dead end"):
        assert said in str(caught.value)


def test_the_default_comes_first_and_the_empty_name_means_it() -> None:
    assert pipelines.names()[0] == "selfcodealign"
    assert pipelines.get("") is pipelines.get("selfcodealign") is PIPELINE


def test_an_unknown_name_is_told_with_the_nearest_and_all_valid_ones() -> None:
    with pytest.raises(InvalidArgument) as caught:
        pipelines.get("selfcodalign", "config.pipeline")
    [(field, text)] = caught.value.violations
    assert field == "config.pipeline"
    assert "did you mean 'selfcodealign'?" in text
    assert all(name in text for name in pipelines.names())


def test_a_description_holds_all_that_a_client_needs() -> None:
    described = pipelines.describe(PIPELINE)
    assert list(described.few_shot_sets) == ["selfcodealign", "nano"]
    assert [(stage.name, stage.parent, stage.role) for stage in described.stages] == [
        ("seeds", "", api.STAGE_ROLE_SEEDS),
        ("concepts", "seeds", api.STAGE_ROLE_WRITING),
        ("instructions", "concepts", api.STAGE_ROLE_WRITING),
        ("responses", "instructions", api.STAGE_ROLE_WRITING),
        ("execution", "responses", api.STAGE_ROLE_EXECUTION),
        ("selection", "execution", api.STAGE_ROLE_SELECTION),
    ]
    for stage in described.stages:
        assert stage.title
        assert stage.description
        assert stage.version >= 1
        assert stage.makes != pb.KIND_UNSPECIFIED
        assert stage.reasons["internal-error"]
        assert "PASSED" not in stage.reasons, "it is listed why items are dropped, and passing is no reason"
        assert stage.HasField("defaults") == (stage.role == api.STAGE_ROLE_WRITING)
    tasks = described.stages[2]
    assert {draw.name: list(draw.values) for draw in tasks.properties} == {
        "category": ["function", "class", "program"],
        "difficulty": ["easy", "medium", "hard"],
        "language": ["Python"],
    }
    assert tasks.defaults.temperature == 0.7
    assert list(tasks.defaults.properties[0].values) == ["function", "function", "class", "program"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the directory `some_pipeline`, the only one of a package `found`."""
    (tmp_path / "found/some_pipeline").mkdir(parents=True)
    (tmp_path / "found/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "found/some_pipeline"
    for name in [name for name in sys.modules if name.partition(".")[0] == "found"]:
        del sys.modules[name]


SOUND = "from dataclasses import replace\nfrom codealign.coordinator.pipelines.selfcodealign import PIPELINE as ONE\n"


def test_a_folder_is_found_by_its_pipeline(folder: Path) -> None:
    (folder / "__init__.py").write_text(f"{SOUND}PIPELINE = replace(ONE, name='some-pipeline')\n")
    assert list(pipelines.load("found", [str(folder.parent)])) == ["some-pipeline"]


def test_a_folder_may_define_several_whose_names_begin_with_its_own(folder: Path) -> None:
    names = "('some-pipeline', 'some-pipeline-2', 'some-pipeline-long')"
    (folder / "__init__.py").write_text(f"{SOUND}PIPELINES = [replace(ONE, name=name) for name in {names}]\n")
    found = pipelines.load("found", [str(folder.parent)])
    assert list(found) == ["some-pipeline", "some-pipeline-2", "some-pipeline-long"]


def test_a_name_that_two_folders_define_is_refused(folder: Path) -> None:
    (folder / "__init__.py").write_text(f"{SOUND}PIPELINES = [replace(ONE, name='some-pipeline-2')]\n")
    (folder.parent / "some_pipeline_2").mkdir()
    (folder.parent / "some_pipeline_2/__init__.py").write_text(
        f"{SOUND}PIPELINE = replace(ONE, name='some-pipeline-2')\n"
    )
    with pytest.raises(ConfigurationError, match="pipeline 'some-pipeline-2' is defined twice"):
        pipelines.load("found", [str(folder.parent)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must define PIPELINE"),
        ("PIPELINES = []", "or PIPELINES as a list"),
        ("PIPELINES = 3", "or PIPELINES as a list"),
        (f"{SOUND}PIPELINES = ONE", "or PIPELINES as a list"),
        (f"{SOUND}PIPELINES = [replace(ONE, name='some-pipeline'), 'x']", "or PIPELINES as a list"),
        (f"{SOUND}PIPELINE = replace(ONE, name='some-pipeline')\nPIPELINES = [PIPELINE]", "PIPELINE as a Pipeline, or"),
        (f"{SOUND}PIPELINES = [replace(ONE, name='some-other')]", "match the beginning of the pipeline's name"),
        (f"{SOUND}PIPELINE = replace(ONE, name='some-pipeline-2')", "must match the pipeline's name"),
        ("PIPELINE = 'some-pipeline'", "must define PIPELINE"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("PIPELINE = (", "cannot be imported: SyntaxError"),
        (f"{SOUND}PIPELINE = ONE", "must match the pipeline's name 'selfcodealign'"),
        (f"{SOUND}PIPELINE = replace(ONE, stages=ONE.stages[1:])", "no Seeds stage"),
    ],
)
def test_a_broken_folder_is_named_with_what_is_wrong(folder: Path, text: str, said: str) -> None:
    (folder / "__init__.py").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        pipelines.load("found", [str(folder.parent)])
    assert "pipeline directory 'some_pipeline'" in str(caught.value)
    assert said in str(caught.value)


def test_a_folder_of_modules_without_an_init_is_named(folder: Path) -> None:
    (folder / "stages.py").touch()
    with pytest.raises(ConfigurationError, match=r"pipeline directory 'some_pipeline': __init__\.py .* is missing"):
        pipelines.load("found", [str(folder.parent)])


EXAMPLE = """
[property]
category = "function"
language = "Python"
difficulty = "easy"
concepts = ["x"]
[example]
seed = "s"
instruction = "i"
response = "r"
"""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "package found has no directory few_shots"),
        ({"other/1.toml": f"{EXAMPLE}tests = 't'"}, "few-shot set 'own' does not exist"),
        ({"own/readme.md": "none"}, "few-shot set 'own' is empty"),
        ({"own/1.toml": EXAMPLE}, "few-shot example own/1.toml: 'tests' is missing"),
        ({"own/1.toml": f"{EXAMPLE}tests = 3"}, "few-shot example own/1.toml: cannot be read"),
        ({"own/1.toml": "["}, "few-shot example own/1.toml: cannot be read"),
    ],
)
def test_few_shot_sets_that_cannot_be_read_are_named(folder: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        path = folder.parent / "few_shots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    few_shots._load.cache_clear()
    with pytest.raises(ConfigurationError) as caught:
        Pipeline("sound", "For this test.", WHOLE, few_shots.FewShotSets("found", default="own"), "0")
    assert said in str(caught.value)


def test_a_set_may_be_a_part_of_another_and_an_example_that_is_not_there_is_named() -> None:
    package = "codealign.coordinator.pipelines.selfcodealign"
    names = ("03-lending-shelf", "01-receipt-layout")
    sets = few_shots.FewShotSets(package, "few", {"few": ("selfcodealign", names)})
    assert sets.names() == ["few", "nano", "selfcodealign"]
    assert [shot.name for shot in sets.load("few")] == sorted(names)
    assert list(sets.mistakes()) == []
    missing = few_shots.FewShotSets(package, "few", {"few": ("selfcodealign", ("99-none",))})
    assert list(missing.mistakes()) == ["few-shot set 'few': there is no example '99-none' in the set 'selfcodealign'"]


def test_a_stage_may_be_placed_below_another_parent() -> None:
    made = pipeline(SeedFunctions(), Concepts(), Instructions(), Evolved(), Responses(parent="evolved"), *WHOLE[4:])
    assert made.candidates.parent == "evolved"
    assert Responses().parent == "instructions"
