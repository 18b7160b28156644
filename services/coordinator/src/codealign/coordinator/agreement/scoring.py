"""Judgement of all attempts at one instruction by what they do and by each other's tests.

**Classes.** Attempts that agree at all inputs that count are a class (`classes.agreeing`). If no call could be
compared, those that pass the same tests are.

**Votes.** An attempt whose answer fails its own tests, or contradicts one of their oracles, contradicts itself: it has
no vote. One whose own tests are undecided has.

**Score.** As CodeT scores a set of solutions that agree by their number times the number of tests that they pass (Chen
et al., "CodeT: Code Generation with Generated Tests", arXiv 2207.10397), all answers of a class have the score

    score(class) = sum of share(i) over the attempts i of the class that have a vote
    share(i)     = sum of w(j) * t(i, j) over j != i / sum of w(j) over j != i

where t(i, j) is 1 if answer i passes the tests of attempt j and agrees with their oracles, else 0. Undecided pairs are
left out. Tests are weighted by how many answers of others pass them, w(j) = (1 + passes) / (2 + decided): tests that
nobody else passes are more likely wrong than everybody else is. If nothing is decided, the share is 1.

**Order.** By the score of the class, then by the own share, the strength of the own tests, and the attempt's number.

**Winner.** The class of the first in this order wins. The attempts contradict each other if it has no more than the
share `majority` of all scores. With the default, one half, a class that is not contested outweighs all others together.
The probability that it is also the most common one counts votes, so that it says whether to draw more attempts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codealign.coordinator.agreement import classes
from codealign.coordinator.agreement.evidence import Attempts, Evidence
from codealign.coordinator.agreement.explaining import sentence, telling_input
from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import Outcomes
from codealign.coordinator.agreement.strength import (
    AddedAssertion,
    MutantResult,
    Strength,
    added_assertions,
    is_equivalent,
    strength,
    strengthened,
)
from codealign.coordinator.agreement.subjects import Subject

_DIGITS = 6
"""Scores are rounded so that a machine's last digits decide nothing."""


@dataclass(frozen=True)
class Rules:
    """Parameters of a judgement."""

    majority: float = 0.5
    """Share of all scores that the winning class must exceed."""
    plurality: float = classes.PLURALITY
    """See `classes.counted`."""
    likely: float = 0.95
    """Probability at which the winner counts as found: with no other class, after four votes."""


DEFAULTS = Rules()


@dataclass(frozen=True)
class AttemptJudgement:
    """What is thought of one attempt."""

    attempt: int
    score: float
    tests_share: float
    """Weighted share of the other attempts' tests that the answer passes."""
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
    """Whether the attempts contradict each other so much that no class has a majority."""
    probability: float
    """Posterior probability that the winning class is more common than the next one; see `classes.probability`."""
    is_settled: bool
    """Whether further attempts are unlikely to change the winner: it is not contested, and likely enough."""


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
    votes = {members: [i for i in members if attempts.results[i][i] is not False] for members in attempts.classes}
    weights = {members: round(sum(shares[i] for i in voters), _DIGITS) for members, voters in votes.items()}
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
    contested = bool(others) and weights[winner] <= rules.majority * sum(weights.values())
    ahead, behind = (
        max((len(votes[each]) for each in some), default=0) for some in ([winner] if winner else [], others)
    )
    likely = classes.probability(ahead, behind) if winner else 0.0
    return Judgement(
        attempts=tuple(judged),
        order=tuple(order),
        classes=(winner, *others) if winner else (),
        counted=attempts.counted,
        contested=contested,
        probability=round(likely, _DIGITS),
        is_settled=not contested and likely >= rules.likely,
    )


def _tests_share(attempts: Attempts, i: int) -> float:
    total = gained = 0.0
    for j, result in enumerate(attempts.results[i]):
        if j == i or result is None:
            continue
        decided = [attempts.results[k][j] for k in attempts.numbers if k != j and attempts.results[k][j] is not None]
        weight = (1 + decided.count(True)) / (2 + len(decided))
        total += weight
        gained += weight * result
    return round(gained / total, _DIGITS) if total else 1.0


def _added(attempts: Attempts, i: int, winner: Sequence[int]) -> Iterator[AddedAssertion]:
    """Yield assertions against surviving mutants of an answer, and against other answers that pass its tests."""
    if attempts.subject is None:
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
    usable = attempts.observed(i)
    tried = [attempts.inputs[number] for number in usable]
    members = [[attempts.outcomes[j][number] for number in usable] for j in winner]
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
