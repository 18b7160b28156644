"""An experiment's results from its evaluations: figures on shared problems, and a sentence for each claim."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.evaluation.results import Board, Outcome
from codealign.coordinator.experiments.history import Cell
from codealign.coordinator.experiments.results import build

SUCCEEDED, FAILED = pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED
PROBLEMS = 20
ARMS = {"base": False, "passes": True, "random": True}


def claim(better: str, than: str, **fields: str) -> pb.ExperimentClaim:
    return pb.ExperimentClaim(statement=f"{better} beats {than}", better=better, than=than, **fields)


def experiment(*claims: pb.ExperimentClaim, seeds: Sequence[int] = (0, 1, 2)) -> pb.Experiment:
    arms = [
        pb.ExperimentArm(name=name, model="base", run=pb.Run() if trained else None) for name, trained in ARMS.items()
    ]
    settings = pb.EvaluationSettings(benchmarks=["humaneval"], samples=1, max_tokens=9)
    return pb.Experiment(name="one", arms=arms, seeds=seeds, claims=claims, evaluations=[settings])


def cell(arm: str, seed: int, state: pb.RunState.ValueType = SUCCEEDED, message: str = "") -> Cell:
    settings = pb.EvaluationSettings(benchmarks=["humaneval"], samples=1, max_tokens=9, prompt_style="tuned")
    settings.model.revision = f"{arm}-{seed}"
    status = api.ExperimentCell(arm=arm, seed=seed, state=state, message=message, rows=7)
    return Cell(pb.ExperimentArm(name=arm), status, [settings])


def board(arm: str, seed: int, passed: int, *, problems: int = PROBLEMS, runners: str = "r1") -> Board:
    settings = {
        "benchmark": "humaneval",
        "benchmark_sha256": "b",
        "judge": 1,
        "max_tokens": 9,
        "model_revision": f"{arm}-{seed}",
        "problems": PROBLEMS,
        "prompt_style": "tuned",
        "runners": runners,
        "seed": 0,
        "temperature": 0.0,
        "templates_sha256": "t",
    }
    body = pb.StageConfig(kind=pb.KIND_EVALUATION_RESULT, name="evaluation", settings_json=json.dumps(settings))
    config = records.complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=body))
    ids = tuple(f"H/{number}" for number in range(problems))
    outcomes = {each: {0: Outcome(at < passed, "PASSED")} for at, each in enumerate(ids)}
    return Board(config, "m", 1, ids, outcomes, PROBLEMS)


def built(
    passed: dict[str, Sequence[int]], *claims: pb.ExperimentClaim, boards: Sequence[Board] = ()
) -> api.ExperimentResult:
    """Return the results of arms whose models pass this many problems, by seed."""
    seeds = range(len(next(iter(passed.values()))))
    cells = [cell(arm, seed) for seed in seeds for arm in passed]
    made = [board(arm, seed, values[seed]) for arm, values in passed.items() for seed in seeds]
    return build(experiment(*claims, seeds=list(seeds)), cells, [*made, *boards])


def test_arms_have_their_mean_and_its_standard_error() -> None:
    found = built({"base": [10, 10, 10], "passes": [14, 15, 16], "random": [10, 12, 11]})
    (measure,) = found.measures
    base, passes, _ = measure.scores
    assert (passes.arm, list(passes.seeds), list(passes.rows)) == ("passes", [0, 1, 2], [7, 7, 7])
    assert list(passes.pass_at_1) == pytest.approx([0.7, 0.75, 0.8])
    assert passes.mean == pytest.approx(0.75)
    assert passes.standard_error == pytest.approx(0.05 / 3**0.5)
    assert base.standard_error == 0
    pairs = [(each.better, each.than) for each in measure.differences]
    assert pairs == [("passes", "base"), ("random", "base")]


def test_claims_are_supported_contradicted_or_undecided_after_holms_correction() -> None:
    found = built(
        {"base": [5, 5, 6], "passes": [14, 15, 15], "random": [6, 4, 9]},
        claim("passes", "base"),
        claim("base", "passes"),
        claim("random", "base"),
    )
    yes, no, unknown = found.decisions
    assert [each.outcome for each in found.decisions] == ["supported", "contradicted", "undecided"]
    # The differences 0.45, 0.5 and 0.45 have the mean 0.46667 and the standard error 0.016667: t = 28 with 2 degrees of
    # freedom, p = 1 - 28 / sqrt(28^2 + 2) = 0.00127; the half-width is 4.30265 * 0.016667 = 0.07171.
    assert yes.difference.p_value == pytest.approx(0.00127, abs=5e-6)
    assert yes.sentence == (
        "Supported: passes is better than base on humaneval by 46.7 points (95% interval +39.5 to +53.8 over 3 seeds; "
        "p = 0.001, 0.004 after Holm's correction over 3 claims)."
    )
    assert no.sentence.startswith("Contradicted: base is worse than passes on humaneval by 46.7 points (")
    assert unknown.sentence.startswith("Undecided: random minus base on humaneval is +5.0 points (")
    assert unknown.adjusted_p_value >= unknown.difference.p_value


def test_with_one_seed_the_sentence_and_a_note_say_that_it_is_about_problems() -> None:
    found = built({"base": [5], "passes": [19], "random": [6]}, claim("passes", "base"))
    (decision,) = found.decisions
    assert decision.outcome == "supported"
    assert "over problems, 1 seed; p < 0.001)" in decision.sentence
    assert not found.measures[0].scores[0].HasField("standard_error")
    assert any(note.startswith("There is one seed") for note in found.notes)


def test_a_claim_whose_arm_has_no_result_stays_undecided_and_counts_in_the_correction() -> None:
    cells = [cell("base", seed) for seed in (0, 1)] + [cell("passes", seed) for seed in (0, 1)]
    cells += [cell("random", 0, FAILED, "the disk is full"), cell("random", 1, FAILED, "the disk is full")]
    made = [board(arm, seed, 5 + seed * (arm == "passes")) for arm in ("base", "passes") for seed in (0, 1)]
    given = experiment(claim("random", "base"), claim("passes", "base", benchmark="humaneval"), seeds=(0, 1))
    found = build(given, cells, made)
    assert found.decisions[0].sentence == "Undecided: random and base have no results of the same seed on humaneval."
    assert not found.decisions[0].HasField("difference")
    assert found.decisions[1].adjusted_p_value == pytest.approx(min(1, 2 * found.decisions[1].difference.p_value))
    assert "2 of 6 cells have no result yet" in found.notes
    assert "arm random, seed 1: the disk is full" in found.notes
    assert any(note.startswith("There are two seeds") for note in found.notes)


def test_figures_are_about_the_problems_that_all_cells_have() -> None:
    cells = [cell(arm, 0) for arm in ("base", "passes")]
    found = build(experiment(seeds=[0]), cells, [board("base", 0, 5, problems=10), board("passes", 0, 15)])
    (measure,) = found.measures
    assert (measure.problems, measure.problems_total) == (10, PROBLEMS)
    assert [score.mean for score in measure.scores] == [0.5, 1.0]
    assert any("about the 10 problems that were judged for every cell" in note for note in found.notes)


def test_cells_without_a_problem_in_common_have_no_figures_and_a_note_says_why() -> None:
    one, other = board("base", 0, 5, problems=10), board("passes", 0, 15)
    for problem_id in one.problem_ids:
        other.outcomes.pop(problem_id)
    found = build(experiment(seeds=[0]), [cell(arm, 0) for arm in ("base", "passes")], [one, other])
    assert not found.measures
    assert any("about the 0 problems that were judged for every cell" in note for note in found.notes)


def test_figures_of_other_runners_are_left_out() -> None:
    cells = [cell(arm, 0) for arm in ARMS]
    made = [board("base", 0, 5), board("passes", 0, 9), board("passes", 0, 1, runners="r2")]
    found = build(experiment(seeds=[0]), cells, [*made, board("random", 0, 7, runners="r2"), board("base", 0, 6)])
    assert [score.arm for score in found.measures[0].scores] in (["base", "passes"], ["passes", "random"])
    assert any("1 of 3 cells were judged by other runners" in note for note in found.notes)


def test_without_results_there_is_no_measure() -> None:
    found = build(experiment(claim("passes", "base")), [], [])
    assert not found.measures
    assert found.decisions[0].outcome == "undecided"
