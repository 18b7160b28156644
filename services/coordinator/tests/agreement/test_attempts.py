"""All parts together: attempts at one instruction, from their texts to the judgement. The texts are ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import hints, inputs, observing
from codealign.coordinator.agreement.calls import common_subject, read, subject_for
from codealign.coordinator.agreement.mutants import mutants
from codealign.coordinator.agreement.outcomes import Observations
from codealign.coordinator.agreement.scoring import Evidence, Judgement, MutantResult, judge, strengthened
from fakes.programs import executed

INSTRUCTION = "Write `cheap(prices)` that returns the names of the products that cost less than 5, sorted."
RIGHT = """
def cheap(prices):
    return sorted(name for name, price in prices.items() if price < 5)
"""
ALSO_RIGHT = """
def cheap(prices: dict[str, int]) -> list[str]:
    found = []
    for name in sorted(prices):
        if 5 > prices[name]:
            found += [name]
    return found
"""
WRONG = RIGHT.replace("< 5", "<= 5")
WEAK = "assert cheap({'tea': 3, 'cake': 8}) == ['tea']\nassert cheap({'rum': 6}) == []\n"
WITH_ORACLE = """
assert cheap({'tea': 2, 'bun': 1}) == sorted(p for p, c in {'tea': 2, 'bun': 1}.items() if not c >= 5)
"""
ATTEMPTS = [(RIGHT, WEAK), (WRONG, WEAK), (ALSO_RIGHT, WITH_ORACLE)]


def passes(code: str, tests: str) -> bool:
    return executed(sb.Program(code=code, tests=tests))[0]


def judged(attempts: Sequence[tuple[str, str]], mutated: int) -> tuple[Judgement, list[inputs.Input]]:
    """Judge attempts, with mutants of one of them."""
    codes, tests = zip(*attempts, strict=True)
    readings = [read(code, text) for code, text in attempts]
    subject = common_subject(readings)
    assert subject is not None
    tried = list(inputs.vary(readings, hints.find(codes, tests, INSTRUCTION), limit=24))

    def observed(code: str, number: int) -> Observations:
        called = subject_for(readings[number], subject)
        assert called is not None
        reading = readings[number]
        program = observing.program(code, called, tried, code, oracles=reading.oracles, preamble=reading.preamble)
        return observing.read(executed(program)[1], code, len(tried), len(reading.oracles))

    results = [
        MutantResult(each.description, not passes(each.code, tests[mutated]), observed(each.code, mutated).outcomes)
        for each in mutants(codes[mutated], 4)
    ]
    evidence = [
        Evidence(
            observed(code, number),
            tuple(passes(code, text) for text in tests),
            inputs.claims(readings[number], tried),
            tuple(results) if number == mutated else (),
        )
        for number, code in enumerate(codes)
    ]
    return judge(evidence, tried, subject), tried


@pytest.fixture(scope="module")
def judgement() -> tuple[Judgement, list[inputs.Input]]:
    return judged(ATTEMPTS, mutated=0)


def test_a_wrong_answer_that_passes_all_tests_is_found(judgement: tuple[Judgement, list[inputs.Input]]) -> None:
    found, _ = judgement
    assert found.classes == ((0, 2), (1,))
    assert found.order[-1] == 1
    assert found.attempts[1].sentence == (
        "passes its own tests, contradicts 2 of 2 other attempts; "
        "at prices={'rum': 5} it returns ['rum'], another returns []"
    )


def test_the_oracle_of_another_attempt_refutes_it(judgement: tuple[Judgement, list[inputs.Input]]) -> None:
    assert [each.refuted_by for each in judgement[0].attempts] == [(), (2,), ()]


def test_weak_tests_become_stronger(judgement: tuple[Judgement, list[inputs.Input]]) -> None:
    first = judgement[0].attempts[0]
    assert first.strength.survived
    assert passes(WRONG, WEAK)
    stronger = strengthened(WEAK, first.added)
    assert passes(RIGHT, stronger)
    assert passes(ALSO_RIGHT, stronger)
    assert not passes(WRONG, stronger)
