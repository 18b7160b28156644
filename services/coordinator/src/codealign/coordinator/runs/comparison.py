"""Comparison of all attempts at an instruction: trials are looked up in the store first, executed if missing.

Trials and judgements are shared by all runs with the same attempts and the same execution. What the machine may have
caused (a limit of time or memory, a fault) is not recorded, and counts neither for nor against an attempt. A judgement
that misses a trial because the infrastructure kept failing belongs to its run: every other run compares anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records, traces
from codealign.common.errors import InvalidArgument
from codealign.coordinator.agreement import comparing
from codealign.coordinator.agreement.comparing import Answer, Compared
from codealign.coordinator.agreement.outcomes import Outcomes
from codealign.coordinator.agreement.scoring import DEFAULTS
from codealign.coordinator.agreement.strength import MutantResult, is_equivalent
from codealign.coordinator.agreement.trials import INPUTS, TESTS, Trial, passes
from codealign.coordinator.ground.calls import trim
from codealign.coordinator.pipelines.selfcodealign.selection import instruction_of
from codealign.coordinator.runs import judged_pairs, judged_rows
from codealign.coordinator.runs.config import COMPARISON
from codealign.coordinator.runs.context import Context
from codealign.coordinator.runs.execution import OF_THE_MACHINE, Execution
from codealign.coordinator.runs.groups import Candidate, packed
from codealign.coordinator.runs.harvest import Attempt

_NOT_KEPT = OF_THE_MACHINE | {sb.VERDICT_INFRASTRUCTURE, sb.VERDICT_REFUSED}


@dataclass(frozen=True)
class Judged:
    """The attempts at an instruction after their comparison."""

    record: pb.Record
    """The judgement."""
    eligible: list[Candidate]
    """Those of the winning class that may become a row, the best first. Empty if the attempts contradict each other."""


class Comparison:
    """Compares attempts for one run.

    Args:
        context: The run.
        execution: Executes the programs.
    """

    def __init__(self, context: Context, execution: Execution) -> None:
        self._context, self._execution = context, execution
        assert context.configs.comparison is not None, "the strategy compares attempts"
        self._config_id = context.configs.comparison.id

    async def judge(self, attempts: Sequence[Attempt], *, last: bool) -> Judged | None:
        """Compare attempts and record the judgement.

        Args:
            attempts: All attempts at an instruction so far.
            last: Whether no further ones can be drawn.

        Returns:
            None if none of them may become a row, or if further attempts may change the judgement and can be drawn.

        Raises:
            RunFailed: The sandbox does not isolate.
            RunStopped: The runners changed since the run was created, or the gate stopped the work.
        """
        attempts = sorted(attempts, key=lambda each: each.candidate)
        if not any(each.eligible for each in attempts):
            return None
        parents = [each.item.record.id for each in attempts]
        shared = _known(attempts)
        own = f"{shared} {self._context.record.id}"
        record = await self._find(parents, (own, shared))
        if record is not None:  # another run may have had fewer attempts to draw
            return await self._judged(record, attempts) if last or _is_settled(record.judgement) else None
        with traces.span(COMPARISON, {"attempts": len(attempts)}):
            compared, complete = await self._compare(attempts, last=last)
        if compared is None:
            return None
        record = pb.Record(
            kind=pb.KIND_JUDGEMENT,
            parents=parents,
            stage_config_id=self._config_id,
            key=shared if complete else own,
            judgement=_body(compared, attempts),
        )
        kept = await self._context.store.append(record)
        # If another run was first, its tests may be others than those that were executed here.
        return await self._judged(kept, attempts, compared.result if kept is record else None)

    async def _find(self, parents: Sequence[str], keys: Sequence[str]) -> pb.Record | None:
        """Return the judgement with the first of the keys that has one."""
        ids = [records.derive_id(pb.KIND_JUDGEMENT, parents, stage_config_id=self._config_id, key=key) for key in keys]
        found = await self._context.store.get(ids)
        chosen = next((record_id for record_id in ids if record_id in found), "")
        return (await self._context.store.join([chosen])).get(chosen) if chosen else None

    async def _judged(self, record: pb.Record, attempts: Sequence[Attempt], result: sb.Result | None = None) -> Judged:
        """Return what follows from a judgement; `result` is that of its stronger tests, if they were executed now."""
        found = record.judgement
        winning = [
            (each, own)
            for each, own in zip(attempts, found.attempts, strict=True)
            if own.class_number == 1 and not own.contradicts_itself
        ]
        ordered = sorted(winning, key=lambda pair: (pair[0].item.record.id != found.best, -pair[1].tests_share))
        eligible = [each.candidate for each, _ in ordered if each.eligible]
        if found.is_contested:
            eligible = []
        elif eligible and found.tests:
            best = next(each for each in attempts if each.item.record.id == found.best)
            if verdict := await self._verdict(record, best, result):
                eligible[0] = eligible[0]._replace(verdict=packed([verdict.id]))
        return Judged(record, eligible)

    async def _verdict(self, judgement: pb.Record, best: Attempt, result: sb.Result | None) -> pb.Record | None:
        """Return the verdict on the best answer with its stronger tests, or None if it does not pass them now."""
        verdict_id = judged_rows.verdict_id(judgement)
        if found := (await self._context.store.join([verdict_id])).get(verdict_id):
            return found
        if result is None:
            code, tests = best.item.record.response.code, judgement.judgement.tests
            program = sb.Program(language=sb.LANGUAGE_PYTHON, code=code, tests=tests)
            result = await self._execution.run(program, sb.Limits(), verdict_id)
        if result is None or result.verdict != sb.VERDICT_PASSED:
            return None
        trim(result)
        return await self._context.store.append(
            pb.Record(
                kind=pb.KIND_VERDICT,
                parents=[best.item.record.id, judgement.id],
                stage_config_id=self._config_id,
                verdict=pb.VerdictBody(result=result),
                provenance=pb.Provenance(seconds=result.queue_seconds + result.wall_seconds),
            )
        )

    async def _compare(self, attempts: Sequence[Attempt], *, last: bool) -> tuple[Compared | None, bool]:
        """Return what the comparison found, and whether the infrastructure carried out all of its trials."""
        answers = [
            Answer(
                each.item.record.response.code,
                each.item.record.response.tests,
                passes(each.verdict.verdict.result),
                each.eligible,
            )
            for each in attempts
        ]
        task = instruction_of(attempts[0].item)
        complete = True

        async def execute(trials: Sequence[Trial]) -> Sequence[sb.Result | None]:
            nonlocal complete
            # If the gate stops one, the others are finished first, so that nothing is in flight afterwards.
            work = (self._execute(trial, attempts) for trial in trials)
            results = await asyncio.gather(*work, return_exceptions=True)
            found = [_result(each) for each in results]
            complete = complete and None not in found
            return found

        text = task.text if task is not None else ""
        return await comparing.compare(text, answers, execute, last=last), complete

    async def _execute(self, trial: Trial, attempts: Sequence[Attempt]) -> sb.Result | None:
        """Return a trial's result from the store or the sandbox."""
        own, other = (attempts[number].item.record.id for number in (trial.answer, trial.other))
        is_kept = (
            trial.purpose in (INPUTS, TESTS) and trial.program.code == attempts[trial.answer].item.record.response.code
        )
        record = pb.Record(
            kind=pb.KIND_TRIAL,
            parents=[own] if own == other else [own, other],
            stage_config_id=self._config_id,
            key=trial.key,
        )
        record.id = records.record_id(record)
        if is_kept and (found := (await self._context.store.join([record.id])).get(record.id)):
            return found.trial.result
        result = await self._execution.run(trial.program, trial.limits, record.id)
        if result is None or not is_kept or not _NOT_KEPT.isdisjoint((result.verdict, *result.run_verdicts)):
            return result
        if trial.purpose == TESTS:
            trim(result)
        record.trial.result.CopyFrom(result)
        try:
            return (await self._context.store.append(record)).trial.result
        except InvalidArgument:  # too large for the store
            return result


def _result(found: sb.Result | BaseException | None) -> sb.Result | None:
    if isinstance(found, BaseException):
        raise found
    return found


def _known(attempts: Sequence[Attempt]) -> str:
    """Return a hash of what is known of the attempts besides their records."""
    lines = [f"{each.verdict.verdict.result.verdict} {int(each.eligible)}" for each in attempts]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_settled(found: pb.Judgement) -> bool:
    return bool(found.best) and found.probability >= DEFAULTS.likely


def _body(compared: Compared, attempts: Sequence[Attempt]) -> pb.Judgement:
    found = compared.judgement
    body = pb.Judgement(
        is_contested=found.contested,
        probability=found.probability,
        inputs=len(found.counted),
        tests=compared.tests,
    )
    judged_pairs.describe(body, compared, DEFAULTS.plurality)
    for own in found.attempts:
        place = next((number for number, members in enumerate(found.classes, 1) if own.attempt in members), 0)
        body.attempts.add(
            score=own.score,
            tests_share=own.tests_share,
            class_number=place,
            class_size=own.class_size,
            contradicts_itself=not own.has_vote,
            sentence=own.sentence,
        )
    if compared.best is None:
        return body
    best = found.attempts[compared.best]
    body.best = attempts[compared.best].item.record.id
    for mutant, result in compared.mutants:
        fate = _fate(result, compared.outcomes)
        told = body.mutants.add(description=mutant.description, fate=fate)
        if fate == pb.JudgedMutant.FATE_SURVIVED:
            told.MergeFrom(judged_pairs.difference(compared, result))
    if best.strength.score is not None:
        body.mutation_score = best.strength.score
    if compared.tests:
        # The comparison counts the attempts that could be read; people know them by their own numbers.
        names = {f"attempt {place}": f"attempt {each.item.record.attempt}" for place, each in enumerate(attempts)}
        for each in best.added:
            detects = [names.get(text, text) for text in each.kills]
            body.added_tests.add(text=each.text, detects=detects, agreed_by=len(each.agreed_by))
    return body


def _fate(result: MutantResult, original: Outcomes) -> pb.JudgedMutant.Fate.ValueType:
    if result.killed is not False:
        return pb.JudgedMutant.FATE_KILLED if result.killed else pb.JudgedMutant.FATE_UNDECIDED
    equivalent = is_equivalent(original, result.outcomes)
    if equivalent is None:
        return pb.JudgedMutant.FATE_UNDECIDED
    return pb.JudgedMutant.FATE_EQUIVALENT if equivalent else pb.JudgedMutant.FATE_SURVIVED
