"""Judgement of all attempts at one instruction by what they do and by each other's tests.

**Classes.** Attempts that agree at all inputs that count are a class (`classes.agreeing`). If no call could be
compared, those that pass the same tests are. An attempt that the infrastructure kept from being observed joins those
that pass the same tests.

**Votes.** An attempt whose answer fails its own tests, or contradicts one of their oracles, contradicts itself: it has
no vote. One whose own tests are undecided has.

**Score.** A class stands for one function, and each is a hypothesis: this function is what the instruction asks for.
Answers and tests of the attempts are the evidence, as in CodeT (Chen et al., "CodeT: Code Generation with Generated
Tests", arXiv 2207.10397), here as a naive Bayes classifier: each piece of evidence multiplies the odds of a class.

    odds(class)  = voted ^ (votes - 1) * product of t(j) over the attempts j whose tests are decided for the class
    t(j)         = general   if its members pass the tests, of which an oracle held at `telling` varied inputs
                   passed    if they pass the tests
                   failed    if they fail them, or contradict one of their oracles
    score(class) = odds(class) / (1 + sum of the odds of all classes)

The 1 is the hypothesis that no class is right. The tests of every attempt count, also of one that fails them: a model
writes right tests for wrong answers as often as wrong tests for right ones. A member's own tests count only if the
class has no other member, since whoever misunderstands a task does so twice. Members with different results (a pair may
be undecided, or have side effects) contribute the mean of the logarithms.

**Order.** By the score of the class, then by the own share of tests, the strength of the own tests, and the attempt's
number. The class of the first in this order wins. The attempts contradict each other if its score is below
`Rules.kept`; drawing may end once it is `Rules.likely`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.coordinator.agreement import classes
from codealign.coordinator.agreement.evidence import Attempts, Evidence
from codealign.coordinator.agreement.explaining import sentence, telling_input
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import Outcomes
from codealign.coordinator.agreement.steadiness import Steadiness, has_sets
from codealign.coordinator.agreement.strength import (
    AddedAssertion,
    MutantResult,
    Strength,
    added_assertions,
    is_equivalent,
    is_set,
    strength,
    strengthened,
)
from codealign.coordinator.agreement.subjects import Subject

_DIGITS = 6
"""Scores are rounded so that a machine's last digits decide nothing."""


@dataclass(frozen=True)
class Rules:
    """Parameters of a judgement. Decision 020 says how the odds were measured."""

    general: float = 8.0
    """Odds of a class that passes tests of which an oracle holds at varied inputs too."""
    passed: float = 2.0
    """Odds of a class that passes tests."""
    failed: float = 0.5
    """Odds of a class that fails tests."""
    voted: float = 2.0
    """Odds of a class for each vote after the first."""
    telling: int = 8
    """Varied inputs at which an oracle must hold to count as general."""
    likely: float = 0.8
    """Score at which the winner counts as found: two votes with tests that both pass, or one with a general oracle."""
    kept: float = 0.6
    """Score below which the attempts contradict each other. A single pass of which nothing else is known has 2/3."""
    plurality: float = classes.PLURALITY
    """See `classes.counted`."""


DEFAULTS = Rules()


@dataclass(frozen=True)
class AttemptJudgement:
    """What is thought of one attempt."""

    attempt: int
    score: float
    """Probability that its class is right."""
    tests_share: float
    """Share of the other attempts' tests that the answer passes, of those that are decided."""
    class_size: int
    """Attempts in its class. 0: it could not be compared."""
    has_vote: bool
    """Whether it does not contradict itself."""
    contradicted_by: tuple[int, ...]
    """Attempts that contradict it at some input."""
    refuted_by: tuple[int, ...]
    """Attempts whose tests have an oracle that contradicts it, perhaps its own."""
    telling_input: int | None
    """The input at which most attempts contradict it; of these the shortest."""
    strength: Strength
    """Of its own tests."""
    sentence: str
    """For people."""
    added: tuple[AddedAssertion, ...]
    """Assertions that make its tests stronger. Empty outside the winning class."""


@dataclass(frozen=True)
class Judgement:
    """What is thought of all attempts at one instruction."""

    attempts: tuple[AttemptJudgement, ...]
    """In the order of their numbers."""
    order: tuple[int, ...]
    """Attempts, the best first."""
    classes: tuple[tuple[int, ...], ...]
    """Attempts that agree, the winning class first, then by score."""
    counted: tuple[int, ...]
    """Numbers of the inputs that count."""
    contested: bool
    """Whether the attempts contradict each other so much that no class is likely enough to be kept."""
    probability: float
    """Probability that the winning class is right: its score. 0: there is no class."""
    is_settled: bool
    """Whether the winner is likely enough to end the drawing."""


def judge(
    evidence: Sequence[Evidence], inputs: Sequence[Input], subject: Subject | None, rules: Rules = DEFAULTS
) -> Judgement:
    """Judge the attempts at one instruction.

    Args:
        evidence: What is known of each attempt.
        inputs: The inputs that the observations are about.
        subject: What is called, as most attempts call it. None: nothing can be called.
        rules: Parameters.
    """
    attempts = Attempts(evidence, inputs, subject, rules.plurality)
    shares = [_tests_share(attempts, i) for i in attempts.numbers]
    weights = _scores(attempts, rules)
    scores = [weights.get(attempts.class_of(i), 0.0) for i in attempts.numbers]
    strengths = [strength(own, each.mutants) for own, each in zip(attempts.outcomes, evidence, strict=True)]
    order = sorted(attempts.numbers, key=lambda i: (-scores[i], -shares[i], -(strengths[i].score or 0.0), i))
    winner = next((members for i in order if (members := attempts.class_of(i))), ())
    others = sorted(
        (each for each in attempts.classes if each != winner), key=lambda each: (-weights[each], -len(each), each)
    )
    judged = [
        AttemptJudgement(
            attempt=i,
            score=scores[i],
            tests_share=shares[i],
            class_size=len(attempts.class_of(i)),
            has_vote=attempts.results[i][i] is not False,
            contradicted_by=tuple(j for j in attempts.numbers if attempts.contradicting(i, j)),
            refuted_by=tuple(j for j in attempts.numbers if attempts.refuting[i][j]),
            telling_input=telling_input(attempts, i),
            strength=strengths[i],
            sentence=sentence(attempts, i),
            added=tuple(_added(attempts, i, winner)) if i in winner else (),
        )
        for i in attempts.numbers
    ]
    likely = weights[winner] if winner else 0.0
    return Judgement(
        attempts=tuple(judged),
        order=tuple(order),
        classes=(winner, *others) if winner else (),
        counted=attempts.counted,
        contested=bool(winner) and likely < rules.kept,
        probability=likely,
        is_settled=likely >= rules.likely,
    )


def _scores(attempts: Attempts, rules: Rules) -> dict[tuple[int, ...], float]:
    """Return the score of each class."""
    logs = {members: _log_odds(attempts, members, rules) for members in attempts.classes}
    top = max([0.0, *logs.values()])  # so that no exponential overflows
    total = math.exp(-top) + sum(math.exp(each - top) for each in logs.values())
    return {members: round(math.exp(each - top) / total, _DIGITS) for members, each in logs.items()}


def _log_odds(attempts: Attempts, members: Sequence[int], rules: Rules) -> float:
    votes = sum(1 for i in members if attempts.results[i][i] is not False)
    total = max(0, votes - 1) * math.log(rules.voted)
    for j in attempts.numbers:
        asked = [i for i in members if i != j] or members
        results = [(i, result) for i in asked if (result := attempts.results[i][j]) is not None]
        if not results:
            continue
        general = any(result and attempts.confirmed(i, j) >= rules.telling for i, result in results)
        share = sum(result for _, result in results) / len(results)
        total += share * math.log(rules.general if general else rules.passed) + (1 - share) * math.log(rules.failed)
    return total


def _tests_share(attempts: Attempts, i: int) -> float:
    decided = [result for j, result in enumerate(attempts.results[i]) if j != i and result is not None]
    return round(sum(decided) / len(decided), _DIGITS) if decided else 1.0


def _added(attempts: Attempts, i: int, winner: Sequence[int]) -> Iterator[AddedAssertion]:
    """Yield assertions against surviving mutants of an answer, and against other answers that pass its tests.

    Witnesses are the answers of the winning class and the oracles of their tests. Left out are inputs at which another
    process may have another result.
    """
    own = attempts.evidence[i].steadiness
    if attempts.subject is None or own == Steadiness.VARIES:
        return
    targets: list[tuple[str, Outcomes]] = [
        (mutant.description, mutant.outcomes)
        for mutant in attempts.evidence[i].mutants
        if mutant.killed is False
        and len(mutant.outcomes) == len(attempts.inputs)
        and is_equivalent(attempts.outcomes[i], mutant.outcomes) is False
    ]
    targets += [
        (f"attempt {j}", attempts.outcomes[j])
        for j in attempts.numbers
        if j not in winner and attempts.evidence[j].passed[i]
    ]
    usable = [
        number
        for number in attempts.observed(i)
        if is_set(attempts.outcomes[i][number])
        or not (own == Steadiness.SETS or has_sets(attempts.inputs[number].arguments))
    ]
    tried = [attempts.inputs[number] for number in usable]
    witnesses = [attempts.outcomes[j] for j in winner] + [each for j in winner for each in attempts.oracles(j)]
    members = [[own[number] for number in usable] for own in witnesses]
    wanted = [(text, [outcomes[number] for number in usable]) for text, outcomes in targets]
    for place, text, kills in added_assertions(attempts.subject, tried, members, wanted):
        agreed = tuple(j for j in winner if attempts.outcomes[j][usable[place]].counts)
        yield AddedAssertion(text, usable[place], kills, agreed)


__all__ = [
    "AddedAssertion",
    "AttemptJudgement",
    "Evidence",
    "Judgement",
    "MutantResult",
    "Rules",
    "Strength",
    "judge",
    "strengthened",
]
