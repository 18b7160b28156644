"""The seeds and few-shot examples: mostly good, and bad in every way that a filter detects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codealign.cli import seeds as reader
from codealign.coordinator.pipelines.selfcodealign import FEW_SHOTS
from codealign.coordinator.rules import benchmarks
from codealign.coordinator.rules.seeds import static_drop
from codealign.nano.examples import holds
from codealign.nano.fewshots import COUNT
from codealign.nano.seeds import GOOD, write_seeds
from codealign.nano.tasks import write_tasks


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> reader.Collected:
    folder = tmp_path_factory.mktemp("seeds")
    for name, text in write_seeds(0, write_tasks(0, 20)).items():
        (folder / name).write_text(text)
    return reader.read(str(folder))


def test_the_filters_have_work(collected: reader.Collected, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in write_tasks(0, 20)))
    texts = benchmarks.load(tmp_path)
    drops = [static_drop(seed, texts) for seed in collected.seeds]
    assert {drop.rule for drop in drops if drop} == {
        "seed.benchmark-text",
        "seed.no-return",
        "seed.unresolved-name",
        "seed.forbidden-word",
        "seed.forbidden-import",
        "seed.no-argument",
    }
    assert drops.count(None) > GOOD
    assert collected.undocumented == 1
    assert [problem.path for problem in collected.problems] == ["unreadable.py"]


def test_some_seeds_are_there_twice(collected: reader.Collected) -> None:
    codes = [seed.code for seed in collected.seeds]
    assert len(codes) - len(set(codes)) >= 8


def test_the_few_shot_examples_are_right_and_pass_their_tests() -> None:
    shots = FEW_SHOTS.load("nano")
    assert len(shots) == len({shot.seed for shot in shots}) == COUNT
    for shot in shots:
        code = shot.response.split("```python\n")[1].removesuffix("```")
        assert holds(code, shot.tests), shot.name
        assert shot.seed.startswith(f"def {shot.name[3:].replace('-', '_')}(")
