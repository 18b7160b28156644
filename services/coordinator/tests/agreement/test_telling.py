"""What is kept of a comparison for people."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from codealign.coordinator.agreement.calls import Arguments
from codealign.coordinator.agreement.evidence import Attempts, Evidence
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import Observations, Outcome
from codealign.coordinator.agreement.telling import MAX_INPUTS, Pair, difference, pairs, telling_inputs

MISSING = Outcome("unobserved", "too late")


def outcomes(*values: object) -> tuple[Outcome, ...]:
    """Return outcomes: "?" is unobserved, anything else is returned."""
    return tuple(MISSING if value == "?" else Outcome("returned", repr(value)) for value in values)


def inputs(*texts: str) -> list[Input]:
    return [Input(Arguments((text,)), "tests") for text in texts]


def attempts(
    rows: Sequence[Sequence[object]],
    texts: Sequence[str] = (),
    passed: Sequence[Sequence[bool | None]] | None = None,
    oracles: Sequence[Sequence[Sequence[object]]] = (),
) -> Attempts:
    passed = passed or [[True] * len(rows)] * len(rows)
    oracles = oracles or [()] * len(rows)
    evidence = [
        Evidence(Observations(outcomes(*row), tuple(outcomes(*each) for each in own)), tuple(results))
        for row, results, own in zip(rows, passed, oracles, strict=True)
    ]
    return Attempts(evidence, inputs(*(texts or map(str, range(len(rows[0]))))), None, 0.5)


def test_each_pair_has_what_became_of_it() -> None:
    made = attempts(
        [[1], [2], [1]],
        passed=[[True, True, None], [True, False, None], [None, True, True]],
        oracles=[(), (), [[1]]],
    )
    assert pairs(made, {(0, 1), (1, 0), (1, 2), (2, 1)}) == [
        *(Pair.PASSED, Pair.PASSED, Pair.NOT_EXECUTED),
        *(Pair.PASSED, Pair.FAILED, Pair.CONTRADICTS),
        *(Pair.NOT_EXECUTED, Pair.PASSED, Pair.PASSED),
    ]


def test_own_tests_without_a_result_are_undecided_not_unexecuted() -> None:
    made = attempts([[1], [1]], passed=[[None, None], [None, None]])
    assert pairs(made, {(0, 1)}) == [Pair.UNDECIDED, Pair.UNDECIDED, Pair.NOT_EXECUTED, Pair.UNDECIDED]


def test_one_input_that_tells_all_classes_apart_is_preferred_then_the_shortest() -> None:
    made = attempts([[0, 0, 0], [1, 1, 1], [0, 2, 2]], texts=["1", "1000", "20"])
    ((number, told),) = telling_inputs(made, [(0,), (1,), (2,)])
    assert number == 2
    assert [(place, each.text) for place, each in told] == [(0, "0"), (1, "1"), (2, "2")]


def test_a_second_input_tells_the_class_that_the_first_does_not() -> None:
    made = attempts([[0, 0], [1, "?"], ["?", 2]])
    found = telling_inputs(made, [(0,), (1,), (2,)])
    assert [number for number, _ in found] == [0, 1]
    assert [[place for place, _ in told] for _, told in found] == [[0, 1], [0, 2]]


def test_what_a_class_does_is_what_any_observed_member_does() -> None:
    made = attempts([["?", 0], [5, 0], [6, 0]])
    ((number, told),) = telling_inputs(made, [(0, 1), (2,)])
    assert (number, [each.text for _, each in told]) == (0, ["5", "6"])


def test_no_more_inputs_than_the_limit() -> None:
    count = MAX_INPUTS + 3
    first: list[object] = [0] * count
    rows = [first, *([*["?"] * place, 1, *["?"] * (count - place - 1)] for place in range(count))]
    assert len(telling_inputs(attempts(rows), [(place,) for place in range(count + 1)])) == MAX_INPUTS


@pytest.mark.parametrize("rows", [[[0], [0]], [["?"], [1]], [["?"], ["?"]]])
def test_classes_that_are_not_observed_to_differ_have_no_telling_input(rows: list[list[object]]) -> None:
    assert telling_inputs(attempts(rows), [(0,), (1,)]) == []


def test_a_mutant_is_told_apart_at_the_shortest_input() -> None:
    tried = inputs("1000", "7", "5")
    assert difference(outcomes(1, 1, 1), outcomes(2, 2, 1), tried) == 1
    assert difference(outcomes(1, 1, 1), outcomes("?", 1, 1), tried) is None
    assert difference(outcomes(1, 1, 1), (), tried) is None
