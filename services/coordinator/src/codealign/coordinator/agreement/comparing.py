"""Comparison of all attempts at one instruction: which programs to execute, and what their results say.

1. Every answer is observed at the same inputs, and executed with the tests of every other attempt.
2. Mutants of the best answer that may become a row are executed with its tests; survivors are observed (`killing`).
3. If the tests can be made stronger, the answer is executed with the stronger ones.

Equal programs are executed once. A pair whose texts are those of one attempt has that attempt's verdict. The caller
executes the programs, and may take results from a cache: a trial's key identifies it among those of one instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.agreement import calls, hints, killing, observing, steadiness
from codealign.coordinator.agreement.calls import Reading
from codealign.coordinator.agreement.evidence import Evidence
from codealign.coordinator.agreement.inputs import Input, claims, vary
from codealign.coordinator.agreement.killing import Mutated
from codealign.coordinator.agreement.mutants import Mutant, mutants
from codealign.coordinator.agreement.outcomes import UNOBSERVED, Observations, Outcome, Outcomes
from codealign.coordinator.agreement.scoring import DEFAULTS, Judgement, Rules, judge
from codealign.coordinator.agreement.strength import MutantResult, strengthened
from codealign.coordinator.agreement.subjects import Subject
from codealign.coordinator.agreement.trials import ADDED, INPUTS, MUTANT, TESTS, Execute, Trial, of_tests, once, passes


@dataclass(frozen=True)
class Answer:
    """An attempt at the instruction."""

    code: str
    tests: str
    passed: bool | None
    """Whether it passes its own tests. None: undecided."""
    eligible: bool
    """Whether it may become a row."""


@dataclass(frozen=True)
class Compared:
    """What a comparison found."""

    judgement: Judgement
    inputs: tuple[Input, ...]
    subject: Subject | None
    best: int | None
    """The best answer that may become a row: the first in order of the winning class. None: there is none."""
    outcomes: Outcomes = ()
    """What the best answer does at the inputs."""
    mutants: tuple[tuple[Mutant, MutantResult], ...] = ()
    """Of the best answer."""
    tests: str = ""
    """Tests of the best answer with the assertions of its judgement, which it passes. Empty: nothing was added."""
    result: sb.Result | None = None
    """Of the best answer with these tests."""
    evidence: tuple[Evidence, ...] = ()
    """What is known of each attempt."""
    executed: frozenset[tuple[int, int]] = frozenset()
    """Answers and other attempts whose tests they were executed with."""


async def compare(
    instruction: str,
    answers: Sequence[Answer],
    execute: Execute,
    rules: Rules = DEFAULTS,
    *,
    last: bool = True,
    together: bool = True,
) -> Compared | None:
    """Compare the attempts at an instruction.

    Args:
        instruction: Its text.
        answers: The attempts that can be read, in the order of their numbers.
        execute: Executes programs.
        rules: Parameters of the judgement.
        last: Whether no further attempts can be drawn.
        together: Whether many mutants may share an execution.

    Returns:
        None if further attempts may change the judgement and can be drawn: no mutants are executed before.
    """
    execute = once(execute)
    work = _Comparison(instruction, answers)
    evidence = await work.evidence(execute)
    judgement = judge(evidence, work.inputs, work.subject, rules)
    best = _best(judgement, answers)
    if not last and (best is None or not judgement.is_settled):
        return None
    if best is None:
        return Compared(judgement, work.inputs, work.subject, None, evidence=tuple(evidence), executed=work.executed)
    made = mutants(answers[best].code)
    tried = await killing.tried(work.mutated(best), made, execute, together=together)
    evidence[best] = replace(evidence[best], mutants=tuple(result for _, result in tried))
    judgement = judge(evidence, work.inputs, work.subject, rules)
    outcomes = evidence[best].observations.outcomes
    found = Compared(
        judgement,
        work.inputs,
        work.subject,
        best,
        outcomes,
        tuple(tried),
        evidence=tuple(evidence),
        executed=work.executed,
    )
    tests = strengthened(answers[best].tests, judgement.attempts[best].added)
    if tests == answers[best].tests:
        return found
    (result,) = await execute([of_tests(ADDED, best, best, answers[best].code, tests)])
    return replace(found, tests=tests, result=result) if result is not None and passes(result) else found


def _best(judgement: Judgement, answers: Sequence[Answer]) -> int | None:
    winner = judgement.classes[0] if judgement.classes else ()
    return next(
        (i for i in judgement.order if i in winner and answers[i].eligible and judgement.attempts[i].has_vote), None
    )


class _Comparison:
    def __init__(self, instruction: str, answers: Sequence[Answer]) -> None:
        self._answers = answers
        self._readings = [calls.read(each.code, each.tests) for each in answers]
        self.subject = calls.common_subject(self._readings)
        self._subjects = [calls.subject_for(each, self.subject) for each in self._readings]
        self.inputs: tuple[Input, ...] = ()
        self.executed: frozenset[tuple[int, int]] = frozenset()
        if self.subject is not None:
            codes, tests = ([getattr(each, name) for each in answers] for name in ("code", "tests"))
            self.inputs = vary(self._readings, hints.find(codes, tests, instruction))

    async def evidence(self, execute: Execute) -> list[Evidence]:
        """Execute every answer at the inputs and with every other attempt's tests."""
        numbers = range(len(self._answers))
        seen = [i for i in numbers if self._subjects[i] is not None and self.inputs]
        fitting = [(i, j) for i in numbers for j in numbers if i != j and self._fits(i, j)]
        self.executed = frozenset(fitting)
        passed = {pair: known[0] for pair in fitting if (known := self._known(*pair))}
        pairs = [pair for pair in fitting if pair not in passed]
        observing_trials = [self._observe(i, self._answers[i].code, self._readings[i]) for i in seen]
        pair_trials = [of_tests(TESTS, i, j, self._answers[i].code, self._answers[j].tests) for i, j in pairs]
        results = await execute([*observing_trials, *pair_trials])
        faulted = {i for i, result in zip(seen, results, strict=False) if result is None}
        observations = {
            i: self._read(trial, result, len(self._readings[i].oracles))
            for i, trial, result in zip(seen, observing_trials, results, strict=False)
        }
        passed |= {pair: passes(result) for pair, result in zip(pairs, results[len(observing_trials) :], strict=True)}
        return [
            Evidence(
                observations.get(i) or self._unobserved("there is nothing to call"),
                tuple(self._answers[i].passed if i == j else passed.get((i, j)) for j in numbers),
                claims(self._readings[i], self.inputs),
                is_faulted=i in faulted,
                steadiness=steadiness.of_code(self._answers[i].code, self._view(i)),
            )
            for i in numbers
        ]

    def _view(self, i: int) -> str:
        subject = self._subjects[i]
        return subject.view if subject is not None else ""

    def mutated(self, i: int) -> Mutated:
        """Return an answer as what its mutants derive from."""
        answer = self._answers[i]
        return Mutated(
            i,
            answer.code,
            answer.tests,
            self._subjects[i],
            self.inputs,
            lambda code: replace(self._observe(i, code, None), purpose=MUTANT),
            lambda trial, result: self._read(trial, result, 0).outcomes,
        )

    def _fits(self, i: int, j: int) -> bool:
        """Return whether the tests of attempt j call what answer i defines."""
        tested = self._readings[j].subject
        return tested is None or tested.name in self._readings[i].defined

    def _known(self, i: int, j: int) -> list[bool | None]:
        """Return the verdict on the program of answer i and the tests of attempt j if it is the program of an attempt.

        Of several, a decided one. Empty: it is none's.
        """
        code, tests = self._answers[i].code, self._answers[j].tests
        own = [each.passed for each in self._answers if (each.code, each.tests) == (code, tests)]
        return sorted(own, key=lambda each: each is None)[:1]

    def _observe(self, i: int, code: str, reading: Reading | None) -> Trial:
        """Return the trial that observes code in the place of answer i; with the oracles of its tests, if given."""
        subject = self._subjects[i]
        assert subject is not None
        oracles, preamble = (reading.oracles, reading.preamble) if reading is not None else ((), ())
        program = observing.program(
            code, subject, self.inputs, _key(code, self.inputs), oracles=oracles, preamble=preamble
        )
        return Trial(INPUTS, i, i, program, observing.LIMITS)

    def _read(self, trial: Trial, result: sb.Result | None, oracles: int) -> Observations:
        if result is None:
            return self._unobserved("the sandbox kept failing")
        ended = sb.Verdict.Name(result.verdict).removeprefix("VERDICT_")
        key = _key(trial.program.code, self.inputs)
        return observing.read(result.stdout.data, key, len(self.inputs), oracles, ended=ended)

    def _unobserved(self, why: str) -> Observations:
        return Observations(tuple(Outcome(UNOBSERVED, why) for _ in self.inputs))


def _key(code: str, inputs: Sequence[Input]) -> str:
    return "\n".join([code, *(str(each.arguments) for each in inputs)])
