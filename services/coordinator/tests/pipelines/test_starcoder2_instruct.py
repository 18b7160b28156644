"""starcoder2-instruct is selfcodealign with 16 examples and a random choice among the passes."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines import selfcodealign
from codealign.coordinator.pipelines.starcoder2_instruct import PIPELINE
from codealign.coordinator.runs.config import with_defaults


def run(**selection: str) -> pb.Run:
    settings = pb.SelectionSettings(**selection)  # type: ignore[arg-type]
    return with_defaults(
        pb.Run(pipeline="starcoder2-instruct", seeds=pb.SeedSelection(collection="c"), selection=settings)
    )


def test_it_shows_16_of_the_examples() -> None:
    own = PIPELINE.few_shots.load(run().few_shot_set)
    assert len(own) == len(set(own)) == 16
    assert set(own) < set(selfcodealign.FEW_SHOTS.load("selfcodealign"))
    assert PIPELINE.few_shots.content_sha256("starcoder2-instruct") != PIPELINE.few_shots.content_sha256(
        "selfcodealign"
    )
    categories = [shot.category for shot in own]
    assert {name: categories.count(name) for name in set(categories)} == {"function": 10, "class": 3, "program": 3}


def test_one_of_ten_answers_is_chosen_at_random_unless_the_run_says_otherwise() -> None:
    assert run().selection.strategy == "random-pass"
    assert run().stages[-1].attempts == 10
    assert with_defaults(run()) == run(), "filling in defaults again changes nothing"
    assert run(strategy="first-pass").selection.strategy == "first-pass"
    assert run(near_duplicates="band-collision").selection.strategy == "random-pass"
    other = with_defaults(pb.Run(seeds=pb.SeedSelection(collection="c")))
    assert other.selection.strategy == "first-pass"


def test_prompts_are_those_of_selfcodealign() -> None:
    assert PIPELINE.templates_sha256 == selfcodealign.PIPELINE.templates_sha256
    assert [stage.name for stage in PIPELINE.stages] == [stage.name for stage in selfcodealign.PIPELINE.stages]
