"""A run's defaults, checks and identity; prompts and few-shot orderings."""

from __future__ import annotations

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.coordinator.method import examples, prompts, sections
from codealign.coordinator.runs.config import GENERATING, draws_id, model_of, run_records, stage_configs, with_defaults


def run(**changes: object) -> pb.Run:
    given = pb.Run(seeds=pb.SeedSelection(collection="c", limit=3), model=pb.ModelChoice(model="m", revision="r"))
    given.MergeFrom(pb.Run(**changes))  # type: ignore[arg-type]
    return with_defaults(given)


def test_defaults_are_the_papers() -> None:
    ready = run()
    assert ready.responses.attempts == 10
    assert (ready.concepts.few_shots, ready.instructions.few_shots, ready.responses.few_shots) == (8, 8, 1)
    assert ready.responses.temperature == 0.7
    assert ready.selection.instruction_words == 200
    assert ready.selection.near_duplicates == "similarity"


def test_zero_temperature_is_greedy_and_not_the_default() -> None:
    assert run(responses=pb.GenerationSettings(temperature=0)).responses.temperature == 0


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidArgument) as caught:
        run(
            pipeline="other",
            responses=pb.GenerationSettings(attempts=1000, top_p=2),
            concepts=pb.GenerationSettings(few_shots=22, attempts=2),
            execution=pb.ExecutionSettings(runs=11),
            few_shot_set="none",
            selection=pb.SelectionSettings(near_duplicates="nearby"),
        )
    assert {field for field, _ in caught.value.violations} == {
        "config.pipeline",
        "config.responses.attempts",
        "config.responses.top_p",
        "config.concepts.few_shots",
        "config.concepts.attempts",
        "config.execution.runs",
        "config.few_shot_set",
        "config.selection.near_duplicates",
    }
    assert "known: similarity, band-collision" in dict(caught.value.violations)["config.selection.near_duplicates"]
    assert "known: nano, selfcodealign" in dict(caught.value.violations)["config.few_shot_set"]


def test_a_runs_identity_is_its_configuration_and_not_its_name() -> None:
    assert run_records(run(name="a"))[1].id == run_records(run(name="b"))[1].id
    assert run_records(run(seed=1))[1].id != run_records(run(seed=2))[1].id


def test_the_strategy_for_near_duplicates_is_part_of_what_seeds_and_rows_depend_on() -> None:
    one = stage_configs(run())
    two = stage_configs(run(selection=pb.SelectionSettings(near_duplicates="band-collision")))
    assert one.seeds.id != two.seeds.id
    assert one.selection.id != two.selection.id
    assert one.responses.id == two.responses.id


def test_another_run_shares_the_stages_whose_settings_are_equal() -> None:
    one, two = stage_configs(run()), stage_configs(run(responses=pb.GenerationSettings(max_tokens=99)))
    assert one.concepts.id == two.concepts.id
    assert one.responses.id != two.responses.id
    more = stage_configs(run(responses=pb.GenerationSettings(attempts=20)))
    assert one.responses.id == more.responses.id, "drawing more attempts must not draw the first ones again"


def test_records_depend_on_how_completions_are_read_and_draws_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    configs, draws = stage_configs(run()), [draws_id(run(), stage) for stage in GENERATING]
    with monkeypatch.context() as later:
        later.setattr(sections, "READING", sections.READING + 1)
        read = stage_configs(run())
        assert all(getattr(read, stage).id != getattr(configs, stage).id for stage in GENERATING)
        assert [draws_id(run(), stage) for stage in GENERATING] == draws
    monkeypatch.setattr(prompts, "RESPONSE", prompts.Section("other", "<task>"))
    assert draws_id(run(), "responses") != draws[2], "other marks in the templates are other prompts"


def test_draws_depend_on_all_that_the_prompts_and_the_model_depend_on() -> None:
    changes: list[dict[str, object]] = [
        {"seed": 1},
        {"few_shot_set": "nano"},
        {"model": pb.ModelChoice(revision="other")},
        {"responses": pb.GenerationSettings(temperature=0.1)},
        {"responses": pb.GenerationSettings(few_shots=2)},
    ]
    found = [draws_id(run(**change), "responses") for change in [{}, *changes]]
    assert len(set(found)) == len(found)


def test_a_stage_may_have_a_model_of_its_own() -> None:
    teacher = run(responses_model=pb.ModelChoice(model="t", revision="x"))
    assert model_of(teacher, "responses").model == "t"
    assert model_of(teacher, "concepts").model == "m"


def test_orderings_are_fixed_by_seed_stage_and_group() -> None:
    first = [shot.name for shot in examples.ordering("selfcodealign", 0, "concepts", "0", 8)]
    assert first == [shot.name for shot in examples.ordering("selfcodealign", 0, "concepts", "0", 8)]
    assert len(set(first)) == 8
    others = [
        examples.ordering("selfcodealign", 1, "concepts", "0", 8),
        examples.ordering("selfcodealign", 0, "responses", "0", 8),
    ]
    assert all([shot.name for shot in other] != first for other in others)


def test_a_prompt_ends_where_the_models_part_begins() -> None:
    shots = examples.ordering("selfcodealign", 0, "concepts", "0", 2)
    text = prompts.concepts_prefix(shots) + prompts.concepts_suffix(3, "def f(x):\n    return x")
    assert text.endswith("return x\n</code>\n<concepts>\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## Example {n}" for n in (1, 2, 3)]
    assert text.count("</concepts>") == 2


def test_the_templates_show_the_model_what_the_parser_reads() -> None:
    from codealign.coordinator.reading import parsing

    (shot,) = examples.ordering("selfcodealign", 0, "responses", "0", 1)
    text = prompts.response_prefix([shot])
    completion = text.split("<answer>\n", 1)[1].split(prompts.RESPONSE.closing_tag)[0]
    parsed = parsing.response(completion, cut_off=False)
    assert isinstance(parsed, parsing.ParsedResponse)
    assert parsed.tests == shot.tests + "\n"
    assert parsed.answer == shot.response
