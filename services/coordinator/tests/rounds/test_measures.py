"""Measures of diversity, and the rules that stop a series."""

from __future__ import annotations

import itertools

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.rounds.stopping import data_reason, score_reason
from codealign.coordinator.rules import near
from codealign.coordinator.rules.diversity import distinct, measure

STOP = pb.StopRules(worse_p=0.05, pass_rate=0.5, diversity=0.5)


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        ([], 1, 0.0),
        (["a b"], 1, 1.0),
        (["a b A B"], 1, 0.5),
        (["a b", "a b"], 2, 0.5),
        (["a", "b"], 2, 0.0),  # no pair of words; pairs never span two texts
        (["a b c", "c d"], 2, 1.0),
    ],
)
def test_distinct_n_is_the_share_of_distinct_n_grams(texts: list[str], n: int, expected: float) -> None:
    assert distinct(texts, n) == expected


def test_mean_similarity_is_the_mean_over_all_pairs() -> None:
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join(words[start : start + 30]) for start in (0, 5, 10, 30)]

    def jaccard(one: str, other: str) -> float:
        first, second = near.shingles(one), near.shingles(other)
        return len(first & second) / len(first | second)

    pairs = [jaccard(one, other) for one, other in itertools.combinations(texts, 2)]
    assert near.mean_similarity(texts) == pytest.approx(sum(pairs) / len(pairs), abs=0.03)
    assert near.mean_similarity([texts[0]] * 3) == 1.0
    assert near.mean_similarity(texts[:1]) == near.mean_similarity([]) == 0.0


def test_texts_that_repeat_themselves_are_less_diverse() -> None:
    different = [f"sort {word} by {word} and return {word}" for word in ("names", "rows", "files", "dates")]
    diverse, uniform = measure(different), measure([different[0]] * 4)
    assert diverse.distinct_1 > uniform.distinct_1
    assert diverse.distinct_2 > uniform.distinct_2
    assert diverse.similarity < uniform.similarity


def data(passed: float = 0.4, instructions: float = 0.8, responses: float = 0.6, version: str = "v") -> pb.RoundData:
    return pb.RoundData(
        version=version,
        pass_rate=passed,
        instructions=pb.TextDiversity(distinct_2=instructions),
        responses=pb.TextDiversity(distinct_2=responses),
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (data(), ""),
        (data(passed=0.2, instructions=0.4, responses=0.3), ""),
        (data(version=""), "it kept no rows"),
        (
            data(passed=0.19),
            "the pass rate of its responses is 0.190, below 0.5 of round 1's 0.400 (setting stop.pass_",
        ),
        (
            data(instructions=0.39),
            "distinct-2 of its instructions is 0.390, below 0.5 of round 1's 0.800 (setting stop.d",
        ),
        (data(responses=0.29), "distinct-2 of its responses is 0.290"),
    ],
)
def test_data_below_a_share_of_the_first_rounds_end_the_series(found: pb.RoundData, says: str) -> None:
    reason = data_reason(STOP, 2, found, data())
    assert reason.startswith(says)
    assert bool(reason) == bool(says)


def test_a_pipeline_that_executes_nothing_is_not_stopped_for_its_pass_rate() -> None:
    bare = data()
    bare.ClearField("pass_rate")
    assert data_reason(STOP, 2, bare, bare) == ""


@pytest.mark.parametrize(
    ("difference", "p_value", "ends"),
    [(-0.1, 0.01, True), (-0.1, 0.05, False), (-0.1, 0.4, False), (0.1, 0.001, False), (0.0, 1.0, False)],
)
def test_a_worse_score_ends_the_series_if_it_is_beyond_noise(difference: float, p_value: float, ends: bool) -> None:
    other = api.Comparison(benchmark="mbpp", difference=0.2, p_value=0.001)
    one = api.Comparison(benchmark="humaneval", difference=difference, p_value=p_value, problems=9, test="t")
    reason = score_reason(STOP, 1, [other, one])
    assert bool(reason) == ends
    if ends:
        assert reason == (
            "its model is worse than the base model beyond noise: humaneval -10.0 points, p = 0.01 (t, 9 problems) "
            "(setting stop.worse_p; 0 switches it off)"
        )
    assert score_reason(pb.StopRules(worse_p=0), 1, [one]) == ""
