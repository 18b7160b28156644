"""The ablation's arithmetic: assignment of answers to arms, and the meaning of the figures."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.bench.ablation import ARMS, BASE, Answers, Score, candidates, page, plot, summary, verdict

FAILURES, RANDOM, PASSES = ARMS


def scores(**values: tuple[float, ...]) -> list[Score]:
    arms = {"base": BASE, "failures": FAILURES, "random": RANDOM, "passes": PASSES}
    return [Score(seed, arms[arm], value) for arm, own in values.items() for seed, value in enumerate(own)]


GOOD = scores(base=(0.40, 0.42, 0.41), failures=(0.1, 0.12, 0.14), random=(0.4, 0.41, 0.45), passes=(0.8, 0.78, 0.79))


def test_each_arm_gets_one_answer_of_each_instruction_that_has_one() -> None:
    answers = [Answers(f"task {number}", [f"right {number}"] * 2, [f"wrong {number}"] * 3) for number in range(200)]
    answers += [Answers("hopeless", [], ["wrong"]), Answers("easy", ["right"], []), Answers("nothing")]
    found = candidates(answers, 1)
    assert [len(found[arm]) for arm in ARMS] == [201, 202, 201]
    assert all(answer.startswith("right") for _, answer in found[PASSES])
    assert all(answer.startswith("wrong") for _, answer in found[FAILURES])
    wrong = sum(answer.startswith("wrong") for _, answer in found[RANDOM])
    assert 100 < wrong < 140, "three answers in five are wrong"
    assert found == candidates(answers[::-1], 1), "the store's order decides nothing"
    assert found != candidates(answers, 2)


def test_means_have_their_standard_errors() -> None:
    mean, error = summary(GOOD)[BASE]
    assert mean == pytest.approx(0.41)
    assert error == pytest.approx(0.01 / 3**0.5)


def test_the_order_is_claimed_only_where_the_means_are_apart() -> None:
    assert verdict(summary(GOOD)).startswith("Passes only > random responses > failures only")
    close = scores(base=(0.4, 0.4), failures=(0.3, 0.5), random=(0.42, 0.44), passes=(0.8, 0.82))
    assert "not every gap" in verdict(summary(close))
    turned = scores(base=(0.4, 0.4), failures=(0.8, 0.8), random=(0.4, 0.41), passes=(0.2, 0.21))
    assert verdict(summary(turned)).startswith("The order is failures only > random responses > passes only")


def test_the_page_and_its_plot_show_every_arm_and_seed() -> None:
    text = page("nano", GOOD, rows=150, samples=10)
    assert "| passes only | 79.0 | 0.6 | 80.0 | 78.0 | 79.0 |" in text
    assert "150 rows" in text
    assert "- passes only over base: +40.0, +36.0, +38.0; mean +38.0, standard error 1.2" in text
    drawn = ET.fromstring(plot(GOOD))
    assert len(drawn.findall("{*}circle")) == len(GOOD) + 4
