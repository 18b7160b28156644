"""Judgement of attempts from what is known of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codealign.coordinator.agreement import classes
from codealign.coordinator.agreement.calls import Arguments, Parameter, Subject
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import Observations, Outcome
from codealign.coordinator.agreement.scoring import Evidence, Judgement, MutantResult, Rules, judge, strengthened
from codealign.coordinator.agreement.strength import is_equivalent, strength

SUBJECT = Subject("small", "", (Parameter("size", "positional"),))
MISSING = Outcome("unobserved", "too late")


def returned(value: object, **more: object) -> Outcome:
    return dataclasses.replace(Outcome("returned", repr(value)), **more)  # type: ignore[arg-type]


def outcomes(*values: object) -> tuple[Outcome, ...]:
    """Return outcomes: "?" is unobserved, an Outcome itself, anything else is returned."""
    return tuple(MISSING if v == "?" else v if isinstance(v, Outcome) else returned(v) for v in values)


def tried(*texts: str, claimed: int = 0) -> list[Input]:
    return [Input(Arguments((text,)), "tests" if n < claimed else "boundary") for n, text in enumerate(texts)]


def judged(
    rows: Sequence[Sequence[object]],
    passed: Sequence[Sequence[bool | None]] | None = None,
    texts: Sequence[str] = (),
    rules: Rules | None = None,
) -> Judgement:
    """Judge attempts by their outcomes. By default each passes all tests."""
    passed = passed or [[True] * len(rows)] * len(rows)
    evidence = [
        Evidence(Observations(outcomes(*row)), tuple(results)) for row, results in zip(rows, passed, strict=True)
    ]
    return judge(evidence, tried(*(texts or map(str, range(len(rows[0]))))), SUBJECT, rules or Rules())


def test_the_wrong_answer_with_weak_tests_is_found() -> None:
    """The task says less than 5. Attempt 1 has `<= 5`, and everybody's tests try 6 and 8."""
    right, wrong = [False, False, True], [False, True, True]
    found = judged([right, wrong, right, right, right], texts=["6", "5", "3"])
    assert found.classes == ((0, 2, 3, 4), (1,))
    assert found.order == (0, 2, 3, 4, 1)
    assert not found.contested
    assert found.is_settled
    attempt = found.attempts[1]
    assert (attempt.contradicted_by, attempt.telling_input, attempt.class_size) == ((0, 2, 3, 4), 1, 1)
    assert attempt.sentence == (
        "passes its own tests, contradicts 4 of 4 other attempts; at size=5 it returns True, another returns False"
    )
    assert found.attempts[0].sentence == (
        "passes its own tests, contradicts 1 of 4 other attempts; at size=5 it returns False, another returns True"
    )


def test_the_telling_input_is_where_most_contradict_and_then_the_shortest() -> None:
    rows = [[0, 0, 0], [0, 1, 1], [1, 1, 1]]
    found = judged(rows, texts=["1", "1000", "20"])
    assert [each.telling_input for each in found.attempts] == [2, 0, 0]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([[1, 2], [1, 2], [1, 3]], [(0, 1), (2,)], id="everything observed"),
        pytest.param([[1, "?"], ["?", 2], [1, 2]], [(0, 1, 2)], id="compatible with one that was observed"),
        pytest.param([[1, 2], [1, 3], [1, "?"]], [(0, 2), (1,)], id="a tie goes to the class with the lowest attempt"),
        pytest.param([[1, 2], [1, 3], [1, 3], [1, "?"]], [(0,), (1, 2, 3)], id="a tie goes to the largest class"),
        pytest.param([[1, 2, "?"], [1, 3, 3], ["?", "?", 3], [1, "?", 3]], [(0,), (1, 2, 3)], id="most agreement"),
        pytest.param([[1, "?"], ["?", 2]], [(0,), (1,)], id="nothing in common"),
        pytest.param([["?", "?"], [1, 1]], [(1,)], id="nothing observed"),
        pytest.param([[1, Outcome("unstable")], [1, 2]], [(0, 1)], id="unstable"),
        pytest.param([[returned(1, printed="a")], [1]], [(0,), (1,)], id="one prints"),
        pytest.param([[returned(1, changed="[2]")], [1]], [(0,), (1,)], id="one changes its arguments"),
        pytest.param([[returned(1, floats=True)], [1]], [(0, 1)], id="a whole float"),
        pytest.param([[Outcome("raised", "KeyError")], [Outcome("raised", "ValueError")]], [(0,), (1,)], id="raised"),
        pytest.param([[Outcome("timed out")], [Outcome("timed out")]], [(0, 1)], id="endless"),
    ],
)
def test_classes_agree_on_everything_observed(rows: list[list[object]], expected: list[tuple[int, ...]]) -> None:
    numbers = range(len(rows[0]))
    assert sorted(classes.agreeing([outcomes(*row) for row in rows], numbers)) == expected


some_outcomes = st.lists(st.lists(st.sampled_from([1, 2, "?"]), min_size=4, max_size=4), min_size=1, max_size=7)


@given(some_outcomes)
def test_no_two_members_of_a_class_contradict_each_other(rows: list[list[object]]) -> None:
    made = [outcomes(*row) for row in rows]
    found = classes.agreeing(made, range(4))
    for members in found:
        for i in members:
            assert not any(a.contradicts(b) for j in members for a, b in zip(made[i], made[j], strict=True))
    placed = sorted(i for members in found for i in members)
    assert placed == [i for i, row in enumerate(made) if any(each.counts for each in row)]


@given(some_outcomes)
def test_attempts_that_do_the_same_are_in_the_same_class_if_all_is_observed(rows: list[list[object]]) -> None:
    rows = [[0 if each == "?" else each for each in row] for row in rows]
    found = classes.agreeing([outcomes(*row) for row in rows], range(4))
    assert len(found) == len({tuple(row) for row in rows})


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([[1, 1, "?"], [1, 1, 1], [1, 2, 1]], [(0, 1), (2,)], id="agrees with one"),
        pytest.param([[1, 1], [1, "?"], ["?", "?"], ["?", "?"]], [(0, 1), (2, 3)], id="undecided is no agreement"),
        pytest.param([[1, "?"], ["?", 1], ["?", 2]], [(1,), (2,)], id="nothing in common"),
        pytest.param([[1, 1], [1, 2], [2, 1]], [(0,), (1,), (2,)], id="contradicts all"),
    ],
)
def test_a_faulted_attempt_joins_only_a_class_that_it_agrees_with(
    rows: list[list[object]], expected: list[tuple[int, ...]]
) -> None:
    made = [outcomes(*row) for row in rows]
    given = [(1,), (2, 3)] if len(rows) == 4 else [(1,), (2,)]
    assert sorted(classes.joined(given, 0, made, range(len(rows[0])))) == expected


def test_a_varied_input_at_which_attempts_scatter_does_not_count() -> None:
    """Of factorial(-1), say, the instruction leaves open what happens."""
    scattered = [outcomes(Outcome("raised", "ValueError")), outcomes(Outcome("timed out")), outcomes(1)]
    assert classes.counted(tried("-1"), scattered) == ()
    assert classes.counted(tried("-1", claimed=1), scattered) == (0,)
    assert classes.counted(tried("-1"), [*scattered, outcomes(1)]) == (0,)
    assert classes.counted(tried("-1"), scattered[:2]) == (0,)
    assert classes.counted(tried("-1"), [outcomes("?"), outcomes("?")]) == (0,)


def test_a_class_that_fails_the_tests_of_others_does_not_win() -> None:
    """Two agree on a wrong answer; each passes its own weak tests, but not those of the two others."""
    rows = [[1], [1], [2], [2]]
    passed: list[list[bool | None]] = [
        [True, True, False, False],
        [True, True, False, False],
        [True, True, True, True],
        [True, True, True, True],
    ]
    found = judged(rows, passed)
    assert found.order == (2, 3, 0, 1)
    assert found.classes[0] == (2, 3)
    # A class of two: 2 for the second vote, and 2 or 1/2 for each of four tests.
    right, wrong = 2 * 2**4, 2 * 2**2 / 2**2
    assert found.attempts[2].score == found.probability == pytest.approx(right / (1 + right + wrong), abs=1e-6)
    assert found.attempts[0].score == pytest.approx(wrong / (1 + right + wrong), abs=1e-6)
    assert not found.contested


def test_the_share_of_tests_leaves_out_the_own_and_the_undecided() -> None:
    passed: list[list[bool | None]] = [[True, True, False], [True, True, False], [True, None, True]]
    found = judged([[1], [1], [1]], passed)
    assert [each.tests_share for each in found.attempts] == [0.5, 0.5, 1.0]


def test_tests_of_attempts_that_fail_them_count() -> None:
    """Nobody else passes the own tests, but all those tests say that attempt 0 is right."""
    passed: list[list[bool | None]] = [[True, True, True], [False, False, False], [False, False, False]]
    found = judged([[1], [2], [3]], passed)
    assert found.classes[0] == (0,)
    assert found.probability > Rules().likely
    passed[0] = [True, False, False]
    assert judged([[1], [2], [3]], passed).contested


def test_who_fails_the_own_tests_has_no_vote() -> None:
    passed: list[list[bool | None]] = [[False, True, True], [False, False, True], [True, True, True]]
    found = judged([[1], [1], [2]], passed)
    assert [each.has_vote for each in found.attempts] == [False, False, True]
    assert found.classes[0] == (2,)
    assert not found.contested
    all_pass = judged([[1], [1]])
    one_fails = judged([[1], [1]], [[True, True], [True, False]])
    assert one_fails.attempts[1].class_size == 2
    assert one_fails.probability < all_pass.probability
    assert "fails its own tests" in found.attempts[0].sentence


def test_undecided_results_count_for_nothing() -> None:
    passed: list[list[bool | None]] = [[None, None], [None, None]]
    found = judged([[1], [1]], passed)
    assert [(each.tests_share, each.has_vote) for each in found.attempts] == [(1.0, True)] * 2
    assert found.probability == pytest.approx(2 / 3, abs=1e-6)
    assert "undecided" in found.attempts[0].sentence


def everybodys(*own: bool) -> list[list[bool | None]]:
    """Return results where attempt j's tests pass on those whose own result is the same as j's."""
    return [[one == other for other in own] for one in own]


def test_attempts_contradict_each_other_if_no_class_is_likely_enough() -> None:
    assert judged([[1], [2]], everybodys(True, False)).contested
    assert judged([[1], [1], [2], [2]], everybodys(True, True, False, False)).contested
    assert not judged([[1], [1], [2]], everybodys(True, True, False)).contested
    assert judged([[1], [1], [2]], everybodys(True, True, False), rules=Rules(kept=0.8)).contested
    assert not judged([[1], [1]]).contested


def test_a_single_pass_of_which_nothing_is_known_is_kept_but_does_not_end_the_drawing() -> None:
    found = judged([[1]])
    assert found.probability == pytest.approx(2 / 3, abs=1e-6)
    assert (found.contested, found.is_settled) == (False, False)


def test_drawing_may_end_when_one_class_is_likely_enough() -> None:
    assert [judged([[1]] * count).is_settled for count in (1, 2, 3)] == [False, True, True]
    assert not judged([[1], [1], [2]], everybodys(True, True, False)).is_settled
    assert judged([[1]] * 4 + [[2]], everybodys(True, True, True, True, False)).is_settled


def test_a_probability_does_not_overflow() -> None:
    assert judged([[1]] * 3, rules=Rules(passed=1e300)).probability == 1.0
    assert judged([[1]] * 3, rules=Rules(passed=1e-300)).probability == 0.0


def test_an_oracle_that_holds_at_varied_inputs_is_strong_evidence() -> None:
    def probability(told: Sequence[object], claimed: int = 1) -> float:
        own = Evidence(Observations(outcomes(*range(9)), (outcomes(*told),)), (True,), frozenset({0}))
        return judge([own], tried(*"abcdefghi", claimed=claimed), SUBJECT).probability

    assert probability(range(9)) == pytest.approx(8 / 9, abs=1e-6)
    assert probability([*range(8), "?"]) == pytest.approx(2 / 3, abs=1e-6)  # seven varied inputs are too few
    assert probability(range(9), claimed=9) == pytest.approx(2 / 3, abs=1e-6)  # it must hold elsewhere
    assert probability([*range(8), 99]) == pytest.approx(1 / 3, abs=1e-6)  # it contradicts the answer


def test_an_oracle_is_a_witness_for_added_assertions() -> None:
    mutants = (MutantResult("m", False, outcomes(1, 5)),)
    own = Evidence(Observations(outcomes(1, 2), (outcomes(1, 2),)), (True,), frozenset({0}), mutants)
    (assertion,) = judge([own], tried("1", "2", claimed=1), SUBJECT).attempts[0].added
    assert (assertion.text, assertion.agreed_by) == ("assert small(2) == 2", (0,))


def test_without_observations_attempts_are_compared_by_the_tests_that_they_pass() -> None:
    passed: list[list[bool | None]] = [[True, True, False], [True, True, False], [True, False, True]]
    evidence = [Evidence(Observations(()), tuple(row)) for row in passed]
    found = judge(evidence, [], None)
    assert found.classes == ((0, 1), (2,))
    assert found.attempts[0].sentence == (
        "passes its own tests and those of 1 of 2 other attempts; no call can be compared"
    )
    assert found.attempts[0].added == ()


def test_an_unobserved_attempt_says_why() -> None:
    found = judged([["?"], [1], [1]])
    assert found.attempts[0].sentence == "passes its own tests; cannot be compared (too late)"
    assert found.attempts[0].class_size == 0
    assert found.order[-1] == 0


def oracle_evidence(own: Sequence[object], oracle: Sequence[object], claims: set[int]) -> Evidence:
    return Evidence(Observations(outcomes(*own), (outcomes(*oracle),)), (True, True), frozenset(claims))


def test_oracles_refute_answers_also_their_own() -> None:
    """The tests say sorted(x) in one case that does not show it."""
    wrong = oracle_evidence([[1, 2], [3, 1]], [[1, 2], [1, 3]], {0})
    right = Evidence(Observations(outcomes([1, 2], [1, 3])), (True, True), frozenset({0}))
    found = judge([wrong, right], tried("[2, 1]", "[3, 1]"), SUBJECT)
    assert found.attempts[0].refuted_by == (0,)
    assert found.attempts[1].refuted_by == ()
    assert not found.attempts[0].has_vote
    assert found.order[0] == 1
    assert found.attempts[0].sentence.endswith("contradicts what its own tests expect at size=[3, 1]")


def test_an_oracle_sees_what_an_equality_sees() -> None:
    """The tests say `== (x % 2 == 0)`: an answer that returns 1 for True passes them."""
    first = oracle_evidence([True, False], [True, False], {0})
    second = Evidence(Observations(outcomes(1, 0)), (True, True), frozenset({0}))
    third = Evidence(Observations(outcomes("True", 0)), (True, True), frozenset({0}))
    assert judge([first, second], tried("2", "3"), SUBJECT).attempts[1].refuted_by == ()
    assert judge([first, third], tried("2", "3"), SUBJECT).attempts[1].refuted_by == (0,)


def test_an_oracle_that_contradicts_the_tests_it_comes_from_is_ignored() -> None:
    wrong_oracle = oracle_evidence([1, 2], [7, 7], {0})
    other = Evidence(Observations(outcomes(1, 2)), (True, True))
    found = judge([wrong_oracle, other], tried("1", "2", claimed=1), SUBJECT)
    assert [each.refuted_by for each in found.attempts] == [(), ()]


def test_an_oracle_that_raises_or_is_unstable_says_nothing() -> None:
    own = oracle_evidence([1, 2, 3], [Outcome("raised", "TypeError"), Outcome("unstable"), "?"], {0})
    found = judge([own, dataclasses.replace(own, observations=Observations(outcomes(1, 2, 3)))], tried(*"123"), SUBJECT)
    assert found.attempts[0].refuted_by == ()


def test_the_mutation_score_leaves_out_what_seems_equivalent() -> None:
    original = outcomes(1, 2, "?")
    mutants = [
        MutantResult("killed", True, outcomes(5, 5, 5)),
        MutantResult("killed without observations", True),
        MutantResult("survives", False, outcomes(1, 3, "?")),
        MutantResult("equivalent", False, outcomes(1, "?", 7)),
        MutantResult("not observed", False),
        MutantResult("undecided", None, outcomes(1, 3, "?")),
    ]
    found = strength(original, mutants)
    assert (found.killed, found.survived, found.equivalent) == (2, 1, 1)
    assert found.score == pytest.approx(2 / 3, abs=1e-6)
    assert strength(original, mutants[3:]).score is None
    assert strength(original, mutants[:2]).score == 1.0
    unseen = strength(original, [mutants[0], mutants[4]])
    assert (unseen.killed, unseen.score) == (1, None), "it may be a fault that the tests miss"
    assert is_equivalent(original, outcomes("?", "?", 3)) is None


def added(
    own: Sequence[object],
    mutants: Sequence[Sequence[object]],
    texts: Sequence[str],
    subject: Subject = SUBJECT,
    members: int = 2,
    rivals: Sequence[Sequence[object]] = (),
) -> list[str]:
    """Return the assertions added for the first of some attempts that agree."""
    results = tuple(MutantResult(f"mutant {n}", False, outcomes(*row)) for n, row in enumerate(mutants))
    count = members + len(rivals)
    evidence = [Evidence(Observations(outcomes(*own)), (True,) * count, mutants=results) for _ in range(members)]
    evidence += [Evidence(Observations(outcomes(*row)), (True,) * count) for row in rivals]
    return [each.text for each in judge(evidence, tried(*texts), subject).attempts[0].added]


def test_assertions_are_added_that_kill_most_survivors() -> None:
    own = [1, 2, 3, 4]
    mutants = [[1, 9, 3, 4], [1, 9, 9, 4], [1, 2, 3, 9]]
    assert added(own, mutants, ["10", "20", "30", "40"]) == ["assert small(20) == 2", "assert small(40) == 4"]


def test_an_answer_that_passes_the_tests_but_contradicts_the_winner_is_detected() -> None:
    assert added([False, False], [], ["6", "5"], rivals=[[False, True]]) == ["assert small(5) is False"]


@pytest.mark.parametrize(
    ("own", "text", "expected"),
    [
        (True, "5", "assert small(5) is True"),
        (None, "5", "assert small(5) is None"),
        ([1, "a"], "'x'", "assert small('x') == [1, 'a']"),
        ({2, 1}, "set()", "assert small(set()) == {1, 2}"),
        (returned(0.3, floats=True), "5", "assert math.isclose(small(5), 0.3, rel_tol=1e-09, abs_tol=1e-09)"),
        (returned(3, floats=True), "5", "assert math.isclose(small(5), 3, rel_tol=1e-09, abs_tol=1e-09)"),
        (Outcome("returned", "'\\xe9'"), "5", "assert small(5) == 'é'"),
    ],
)
def test_an_added_assertion_has_literals_only(own: object, text: str, expected: str) -> None:
    assert added([own], [[77]], [text]) == [expected]


@pytest.mark.parametrize(
    ("own", "text"),
    [
        pytest.param(returned([0.3], floats=True), "5", id="floats in a list"),
        pytest.param(Outcome("returned", "nan", floats=True), "5", id="nan"),
        pytest.param(Outcome("returned", "iterator(1, 2)"), "5", id="an iterator"),
        pytest.param(Outcome("returned", "Point(x=1)"), "5", id="an object"),
        pytest.param(Outcome("returned", "{[]: 1}"), "5", id="a forged value"),
        pytest.param(Outcome("returned", "0x" + "f" * 5_000), "5", id="a forged number"),
        pytest.param(Outcome("returned", "-" * 900 + "1"), "5", id="nested deeply"),
        pytest.param(Outcome("returned", "9" * 990), "5", id="too long"),
        pytest.param(Outcome("raised", "ValueError"), "5", id="an exception"),
        pytest.param(Outcome("timed out"), "5", id="endless"),
        pytest.param(1, "Point(1)", id="an argument that is no literal"),
        pytest.param(1, "float('inf')", id="an argument without a literal"),
    ],
)
def test_what_has_no_literal_is_not_asserted(own: object, text: str) -> None:
    assert added([own], [[77]], [text]) == []


def test_one_attempt_alone_proves_nothing() -> None:
    assert added([1], [[2]], ["5"], members=1) == []
    assert added([1], [[2]], ["5"], members=2) == ["assert small(5) == 1"]


@pytest.mark.parametrize(
    ("own", "other"),
    [
        pytest.param(1, returned(1, printed="x"), id="one prints"),
        pytest.param(1, True, id="1 equals True"),
        pytest.param([0, "True"], [False, "True"], id="also in a list"),
        pytest.param(returned(0.5, floats=True), returned(0.50000000001, floats=True), id="within the tolerance"),
        pytest.param(10**12, returned(1e12, floats=True), id="a whole float"),
    ],
)
def test_a_difference_that_an_assertion_does_not_see_is_none(own: object, other: object) -> None:
    assert added([own], [[other]], ["5"]) == []


@pytest.mark.parametrize(
    ("own", "other"),
    [
        pytest.param(True, 1, id="compared by is"),
        pytest.param(1, False, id="another truth"),
        pytest.param(returned(0.5, floats=True), returned(0.5001, floats=True), id="above the tolerance"),
        pytest.param(returned(0.5, floats=True), Outcome("returned", "nan", floats=True), id="nan"),
        pytest.param(returned(0.5, floats=True), 10**400, id="no float"),
        pytest.param(returned(0.5, floats=True), "True", id="a text"),
        pytest.param(1, Outcome("raised", "True"), id="an exception"),
    ],
)
def test_a_difference_that_an_assertion_sees_is_one(own: object, other: object) -> None:
    assert len(added([own], [[other]], ["5"])) == 1


def test_witnesses_that_disagree_prove_nothing() -> None:
    """The second attempt was not observed at 2, and its oracle contradicts there what the first one does."""
    first = Evidence(Observations(outcomes(1, 2)), (True, True), mutants=(MutantResult("m", False, outcomes(1, 5)),))
    for told, texts in ((3, []), (2, ["assert small(2) == 2"])):
        second = Evidence(Observations(outcomes(1, "?"), (outcomes(1, told),)), (True, True), frozenset({0}))
        found = judge([first, second], tried("1", "2", claimed=1), SUBJECT)
        assert not found.contested
        assert [each.text for each in found.attempts[0].added] == texts


def test_views_are_part_of_an_added_assertion() -> None:
    subject = Subject("Square", "_.area()", (Parameter("side", "positional"),))
    assert added([4], [[5]], ["2"], subject) == ["assert Square(2).area() == 4"]


def test_the_added_assertions_say_what_they_detect_and_who_agrees() -> None:
    evidence = [
        Evidence(Observations(outcomes(1, 2)), (True, True, True), mutants=(MutantResult("m", False, outcomes(1, 5)),)),
        Evidence(Observations(outcomes(1, 2)), (True, True, True)),
        Evidence(Observations(outcomes(1, "?")), (True, True, True)),
    ]
    (assertion,) = judge(evidence, tried("1", "2"), SUBJECT).attempts[0].added
    assert (assertion.input, assertion.kills, assertion.agreed_by) == (1, ("m",), (0, 1))


def test_assertions_are_appended_with_the_import_that_they_need() -> None:
    own = [returned(0.5, floats=True), 2]
    evidence = [
        Evidence(Observations(outcomes(*own)), (True, True), mutants=(MutantResult("m", False, outcomes(9, 9)),))
    ] * 2
    found = judge(evidence, tried("10", "2"), SUBJECT).attempts[0].added
    assert strengthened("assert small(1)\n\n", found) == "assert small(1)\nassert small(2) == 2\n"
    evidence = [dataclasses.replace(each, observations=Observations(outcomes(own[0], "?"))) for each in evidence]
    found = judge(evidence, tried("10", "2"), SUBJECT).attempts[0].added
    assert strengthened("assert small(1)", found).split("\n")[1:] == ["import math", found[0].text, ""]
    assert strengthened("assert small(1)", []) == "assert small(1)"


@given(some_outcomes, st.data())
def test_a_judgement_is_complete_and_the_same_again(rows: list[list[object]], data: st.DataObject) -> None:
    result = st.lists(st.sampled_from([True, False, None]), min_size=len(rows), max_size=len(rows))
    passed = data.draw(st.lists(result, min_size=len(rows), max_size=len(rows)))
    found = judged(rows, passed)
    assert sorted(found.order) == list(range(len(rows)))
    assert [each.attempt for each in found.attempts] == list(range(len(rows)))
    assert 0 <= found.probability <= 1
    assert all(0 <= each.tests_share <= 1 for each in found.attempts)
    assert found == judged(rows, passed)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["contested"] in (True, False)
