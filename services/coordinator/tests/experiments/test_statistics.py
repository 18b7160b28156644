"""Statistics of experiments, checked against tables and textbook examples."""

from __future__ import annotations

import pytest

from codealign.coordinator.evaluation.statistics import Score
from codealign.coordinator.experiments import statistics
from codealign.coordinator.experiments.statistics import OVER_PROBLEMS, T_TEST

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Differences in hours of sleep of Student's ten patients (Student 1908). R gives t = 4.0621 with 9 degrees of freedom,
p = 0.002833, and the interval 0.7001142 to 2.4598858."""


def scores(*rates: float, samples: int = 1000) -> dict[str, Score]:
    return {f"P/{number}": Score(samples, round(samples * rate)) for number, rate in enumerate(rates)}


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (29, 2.045), (120, 1.980)],
)
def test_quantiles_of_t_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert statistics.t_quantile(degrees) == pytest.approx(quantile, abs=6e-4)
    assert statistics.t_p_value(statistics.t_quantile(degrees), degrees) == pytest.approx(0.05)


def test_p_values_of_t_are_exact_where_they_have_a_closed_form() -> None:
    assert statistics.t_p_value(1, 1) == pytest.approx(0.5)  # Cauchy
    assert statistics.t_p_value(-2, 2) == pytest.approx(1 - 2 / 6**0.5)
    assert statistics.t_p_value(4.0621, 9) == pytest.approx(0.002833, abs=1e-6)
    assert statistics.t_p_value(0, 7) == 1
    assert 0 <= statistics.t_p_value(1e9, 4) < 1e-15


def test_the_standard_error_needs_two_values() -> None:
    assert statistics.standard_error([0.3]) is None
    assert statistics.standard_error([0.40, 0.42, 0.41]) == pytest.approx(0.01 / 3**0.5)


def test_seeds_are_compared_by_a_paired_t_test() -> None:
    found = statistics.difference([scores(0.5 + each / 10) for each in SLEEP], [scores(0.5)] * 10)
    assert found.test == T_TEST
    assert found.mean == pytest.approx(0.158)
    assert found.interval == pytest.approx((0.07001142, 0.24598858))
    assert found.p_value == pytest.approx(0.002833, abs=1e-6)
    assert found.by_seed == pytest.approx([each / 10 for each in SLEEP])


def test_one_seed_is_compared_over_its_problems() -> None:
    better, worse = scores(1, 1, 1, 1, 1, 1, 0, samples=1), scores(0, 0, 0, 0, 0, 0, 0, samples=1)
    found = statistics.difference([better], [worse])
    assert found.test == f"{OVER_PROBLEMS}, exact McNemar"
    assert found.p_value == 2 / 64
    assert found.mean == pytest.approx(6 / 7)
    assert 0 < found.interval[0] < found.mean < found.interval[1] == 1


def test_seeds_that_do_not_differ_are_no_evidence_without_limit() -> None:
    better, worse = scores(1, 1, 1, 0, samples=1), scores(0, 1, 1, 0, samples=1)
    found = statistics.difference([better] * 3, [worse] * 3)
    assert found.test == f"{OVER_PROBLEMS}, sign-flip permutation"
    assert found.p_value == 1, "one problem of four differs"


def test_holms_correction_multiplies_the_smallest_by_the_number_of_tests() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1, 1]
    assert statistics.holm([0.02]) == [0.02]
    assert statistics.holm([]) == []
