"""Statistics, checked against values computed by hand and, if installed, SciPy."""

from __future__ import annotations

import json
import math
import random

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.evaluation import statistics
from codealign.coordinator.evaluation.history import comparisons
from codealign.coordinator.evaluation.results import Board, Outcome
from codealign.coordinator.evaluation.statistics import Score


def test_pass_at_k_is_the_share_of_draws_with_a_pass() -> None:
    assert statistics.pass_at_k(1, 1, 1) == 1
    assert statistics.pass_at_k(10, 3, 1) == pytest.approx(0.3)
    # Of the C(5, 2) = 10 pairs, C(3, 2) = 3 contain no pass.
    assert statistics.pass_at_k(5, 2, 2) == pytest.approx(0.7)
    assert statistics.pass_at_k(200, 199, 10) == 1
    assert statistics.pass_at_k(200, 1, 100) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="pass@5"):
        statistics.pass_at_k(4, 1, 5)


def test_k_is_what_the_samples_allow() -> None:
    assert statistics.ks(1) == [1]
    assert statistics.ks(7) == [1, 5, 7]
    assert statistics.ks(100) == [1, 5, 10, 100]
    assert statistics.ks(200) == [1, 5, 10, 100, 200]


def test_wilsons_interval() -> None:
    # Textbook values (Newcombe 1998, table I, method 3): 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for passed, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert statistics.wilson(passed, total) == pytest.approx((low, high), abs=5e-5)
    assert statistics.wilson(0, 0) == (0, 1)


def test_the_bootstrap_is_deterministic_and_near_the_normal_interval() -> None:
    draw = random.Random(1)
    values = [draw.random() for _ in range(164)]
    low, high = statistics.bootstrap(values)
    assert (low, high) == statistics.bootstrap(list(values))
    average = statistics.mean(values)
    spread = math.sqrt(sum((each - average) ** 2 for each in values) / len(values))
    half = statistics.Z95 * spread / math.sqrt(len(values))
    assert (low, high) == pytest.approx((average - half, average + half), abs=0.15 * half)
    assert statistics.bootstrap([1.0] * 5) == (1, 1)
    assert statistics.bootstrap([]) == (0, 0)


def test_mcnemars_test_is_the_binomial_of_the_pairs_that_differ() -> None:
    assert statistics.mcnemar(0, 0) == 1
    assert statistics.mcnemar(3, 3) == 1
    assert statistics.mcnemar(0, 6) == 2 / 64
    # 2 * (1 + 10 + 45) / 1024
    assert statistics.mcnemar(8, 2) == pytest.approx(112 / 1024)
    assert statistics.mcnemar(0, 2000) == 0 or statistics.mcnemar(0, 2000) < 1e-300


def test_sign_flips_are_enumerated_where_few_differ() -> None:
    assert statistics.sign_flip([]) == statistics.sign_flip([0.0, 0.0]) == 1
    # Of the 8 assignments of +-0.5, +-0.25, +-0.25 only two reach 1.
    assert statistics.sign_flip([0.5, 0.25, 0.25, 0.0]) == 2 / 8
    assert statistics.sign_flip([0.1] * 3 + [-0.1] * 3) == 1


def test_sign_flips_that_are_drawn_agree_with_the_exact_test() -> None:
    # With equal steps the sign-flip test is the sign test, and so McNemar's.
    drawn = statistics.sign_flip([1.0] * 15 + [-1.0] * 5)
    assert drawn == pytest.approx(statistics.mcnemar(15, 5), abs=0.01)
    assert drawn == statistics.sign_flip([1.0] * 15 + [-1.0] * 5)
    assert statistics.sign_flip([1.0] * 40) == pytest.approx(1 / 10_001)


def test_two_models_are_compared_problem_by_problem() -> None:
    first = [Score(1, passed) for passed in (1, 0, 0, 0, 1)]
    second = [Score(1, passed) for passed in (1, 1, 1, 0, 0)]
    found = statistics.compare(first, second)
    assert found.difference == pytest.approx(0.2)
    assert (found.first_better, found.second_better) == (1, 2)
    assert (found.p_value, found.test) == (1.0, "exact McNemar")
    assert found.interval[0] < 0.2 < found.interval[1]
    several = statistics.compare([Score(4, 1), Score(4, 2)], [Score(4, 3), Score(4, 2)])
    assert (several.difference, several.test) == (0.25, "sign-flip permutation")


def test_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    for one, other in ((3, 9), (0, 5), (20, 31)):
        assert statistics.mcnemar(one, other) == pytest.approx(stats.binomtest(one, one + other).pvalue)
    for passed, total in ((5, 9), (150, 164)):
        theirs = stats.binomtest(passed, total).proportion_ci(method="wilson")
        assert statistics.wilson(passed, total) == pytest.approx((theirs.low, theirs.high))


def test_models_with_different_numbers_of_samples_are_compared_on_the_first_of_them() -> None:
    def evaluated(revision: str, style: str, passes: dict[str, list[bool]]) -> tuple[Board, api.Evaluation]:
        settings: dict[str, object] = {"benchmark": "b", "model_revision": revision, "prompt_style": style}
        settings |= {"temperature": 0.8, "max_tokens": 100, "problems": len(passes)}
        body = pb.StageConfig(kind=pb.KIND_EVALUATION_RESULT, settings_json=json.dumps(settings))
        config = records.complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=body))
        samples = min(map(len, passes.values()))
        board = Board(config, revision, samples, tuple(passes))
        for problem_id, each in passes.items():
            board.outcomes[problem_id] = {at: Outcome(passed, "") for at, passed in enumerate(each)}
        return board, board.evaluation()

    base = evaluated("base", "base", {"a": [False, False, True, True], "b": [True, False, True, True]})
    tuned = evaluated("tuned", "tuned", {"a": [True, False], "b": [True, True]})
    [found] = comparisons("base", ["tuned"], [base, tuned])
    assert (found.base, found.tuned, found.problems) == (base[1].id, tuned[1].id, 2)
    assert found.difference == 0.5
    assert comparisons("base", ["tuned"], [base, evaluated("tuned", "tuned", {"c": [True]})]) == []
