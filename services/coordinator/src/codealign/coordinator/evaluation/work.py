"""Execution of an evaluation: inference generates, the sandbox judges, the store keeps each result.

A result's id is derived from the problem, the configuration and the sample number. Existing results are therefore never
computed again, and an evaluation that was killed resumes where it stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import InvalidArgument
from codealign.common.logs import get_logger
from codealign.common.sequences import batched
from codealign.common.text import encodable
from codealign.coordinator.evaluation import programs, prompts
from codealign.coordinator.evaluation.judging import Judge, ReferenceFailed
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import Problem
from codealign.coordinator.evaluation.request import Asked, sample_seed
from codealign.coordinator.evaluation.results import Board
from codealign.coordinator.evaluation.runners import RunnerCheck, RunnerIdentity
from codealign.coordinator.evaluation.sheets import Sheet
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.calls import Completions, provenance
from codealign.coordinator.ground.faults import OF_THE_PROMPT, Faulty, Refused, RunFailed
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import StageTally, verdict_name
from codealign.coordinator.ground.windows import Window, of_inference, of_sandbox
from codealign.coordinator.metrics import StageMeter
from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.reading import sections
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)
COLLECTION = "evaluations"
"""Collection of all records that evaluations append."""
STAGE = "evaluation"
"""Name of the work in metrics, beside the pipelines' stages."""
_SAMPLES_PER_CALL = 64
_MOST_PROBLEMS = 1024
"""Default number of problems in progress: more than an engine has slots for, with little memory."""
_MOST_FAULTS = 20
"""Number of prompts with internal inference errors after which to check whether inference still works."""
_DETAIL_CHARS = 2000
"""Maximum length of an error message in a result."""


@dataclass
class _Wanted:
    """Missing samples of one problem."""

    board: Board
    problem: Problem
    record: pb.Record
    attempts: set[int]


@dataclass
class _Group:
    """Problems of several benchmarks with the same prompt: their completions are generated once."""

    question: prompts.Question
    problem_id: str
    wanted: list[_Wanted] = field(default_factory=list)

    @property
    def attempts(self) -> list[int]:
        """Samples to generate."""
        return sorted(set[int]().union(*(each.attempts for each in self.wanted)))


@dataclass(frozen=True)
class _Unanswered:
    """Samples of a group that inference does not generate, even after retries."""

    group: _Group
    attempts: Sequence[int]
    error: Refused | Faulty

    @property
    def detail(self) -> str:
        """Error message to store in a result."""
        if isinstance(self.error, Refused):
            return f"inference rejected the prompt: {self.error}"
        return f"{INTERNAL_ERROR}: {self.error}"


@dataclass(frozen=True)
class Limits:
    """Concurrency limits, shared by all evaluations of a coordinator."""

    generations: Window
    """Window of samples in flight at inference."""
    executions: Window
    """Window of programs in flight at the sandbox."""
    generation_seconds: float
    """Timeout of one call to inference, in seconds."""
    problems: int
    """Maximum number of problems in progress per evaluation; bounds memory."""

    @classmethod
    def of(cls, settings: CoordinatorSettings, services: Services) -> Limits:
        """Return the limits given by the coordinator's settings."""
        return cls(
            of_inference(services.inference, settings.generations_in_flight),
            of_sandbox(services.sandbox, settings.executions_in_flight),
            settings.generation_timeout_seconds,
            settings.seeds_in_flight or _MOST_PROBLEMS,
        )


class Work:
    """Remaining work of an evaluation.

    Args:
        services: Clients of the other services; inference and the sandbox are used.
        limits: Concurrency limits.
        known: Cache of execution results, shared by all evaluations.
        store: Store, under the evaluation's lease.
        asked: Settings of the evaluation.
        model: Model to evaluate, as listed by inference.
        assignment: Gates new work, and reports which services it waits for.
        runners: Runners that the results depend on.

    Attributes:
        broken: For each problem whose reference solution fails in the sandbox, the reason.
        tally: Counts of the samples.
    """

    def __init__(
        self,
        services: Services,
        limits: Limits,
        known: KnownResults,
        store: RunStore,
        asked: Asked,
        model: inf.Model,
        assignment: Assignment,
        runners: RunnerIdentity,
    ) -> None:
        self._store, self._asked, self._model, self._gate = store, asked, model, assignment.gate
        verdicts = [verdict_name(value) for value in sb.Verdict.values()]
        tally, gate, waiting = StageTally(meter=StageMeter(STAGE, verdicts)), assignment.gate, assignment.waiting
        self.tally = tally
        self._completions = Completions(
            services.inference, tally, limits.generations, gate, limits.generation_seconds, waiting
        )
        check = RunnerCheck(services.sandbox, runners)
        self._judge = Judge(services.sandbox, limits.executions, tally, gate, known, waiting, check)
        self._in_flight = limits.problems
        self._sheets: Sequence[Sheet] = ()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._held: list[_Unanswered] = []
        """Failed samples not recorded yet: if inference answers no prompt at all, the prompts are not the cause."""
        self.broken: dict[str, str] = {}

    async def prepare(self, sheets: Sequence[Sheet]) -> None:
        """Append the records that results refer to, and read the existing results."""
        self._sheets = sheets
        for sheet in sheets:
            await self._store.append_all([sheet.board.config, *sheet.records])
            await sheet.read(self._get)
            sheet.board.reused = len(sheet.board.done())
            for problem, record in zip(sheet.problems, sheet.records, strict=True):
                if missing := sheet.missing(problem):
                    self._want(_Wanted(sheet.board, problem, record, missing))

    async def _get(self, ids: Sequence[str]) -> Iterable[pb.Record]:
        return (await self._store.get(ids)).values()

    def _want(self, wanted: _Wanted) -> None:
        problem = wanted.problem
        question = prompts.ask(problem, self._asked.style)
        key = (problem.problem_id, question.written)
        self._groups.setdefault(key, _Group(question, problem.problem_id)).wanted.append(wanted)

    async def run(self) -> None:
        """Generate and judge the missing samples.

        Raises:
            RunFailed: A service is unusable, inference answers no prompt, or no problem of a benchmark can be judged.
        """
        waiting = iter(list(self._groups.values()))

        async def work() -> None:
            for group in waiting:
                self._gate()
                await self._solve(group)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._in_flight, len(self._groups))):
                tasks.create_task(work())
        if self._held:
            await self._require_answer()
            await self._settle()
        for sheet in self._sheets:
            reasons = [self.broken[each.problem_id] for each in sheet.problems if each.problem_id in self.broken]
            if reasons and not sheet.board.outcomes:
                raise RunFailed(reasons[0])

    async def _solve(self, group: _Group) -> None:
        for attempts in batched(group.attempts, _SAMPLES_PER_CALL):
            request = self._request(group, attempts)
            left = set(attempts)
            async with asyncio.TaskGroup() as judging:
                try:
                    async with contextlib.aclosing(self._completions.of(request)) as given:
                        async for response in given:
                            left.remove(response.completion.attempt)
                            judging.create_task(self._judge_all(group, response))
                            await self._settle()
                except Faulty as fault:
                    await self._hold(_Unanswered(group, sorted(left), fault))
                except Refused as refusal:
                    if refusal.field not in OF_THE_PROMPT:
                        raise
                    await self._hold(_Unanswered(group, sorted(left), refusal))

    async def _hold(self, unanswered: _Unanswered) -> None:
        """Hold samples that inference does not generate, to record them once it answers another prompt."""
        self._held.append(unanswered)
        faults = sum(isinstance(each.error, Faulty) for each in self._held)
        if faults >= _MOST_FAULTS and not self.tally.in_flight:
            await self._require_answer()
            await self._settle()

    async def _settle(self) -> None:
        """Record the held samples as failed, since inference answers other prompts."""
        held, self._held = self._held, []
        for each in held:
            result = sb.Result(verdict=sb.VERDICT_REFUSED, detail=each.detail[:_DETAIL_CHARS])
            made = pb.Provenance(model=self._model.name, model_revision=self._model.revision)
            for wanted in each.group.wanted:
                for attempt in each.attempts:
                    if attempt in wanted.attempts:
                        await self._append(wanted, attempt, pb.EvaluationResult(result=result), made)

    async def _require_answer(self) -> None:
        """Request a sample that inference has generated before, to check that it still works.

        Raises:
            Refused: Inference refuses every prompt.
            RunFailed: Inference answers no prompt.
        """
        first = self._held[0].error
        for sheet in self._sheets:
            for problem in sheet.problems:
                verdicts = {each.verdict for each in sheet.board.outcomes.get(problem.problem_id, {}).values()}
                if verdicts - {verdict_name(sb.VERDICT_REFUSED)}:
                    again = _Group(prompts.ask(problem, self._asked.style), problem.problem_id)
                    async with contextlib.aclosing(self._completions.of(self._request(again, [0]))) as given:
                        async for _ in given:
                            return
        raise first

    def _request(self, group: _Group, attempts: Iterable[int]) -> inf.GenerateRequest:
        asked = self._asked
        request = inf.GenerateRequest(
            model=self._model.name,
            expected_revision=self._model.revision,
            samples=[
                inf.Sample(attempt=attempt, seed=sample_seed(asked, group.problem_id, attempt)) for attempt in attempts
            ],
            sampling=inf.SamplingParameters(temperature=asked.temperature, top_p=1.0, max_tokens=asked.max_tokens),
        )
        group.question.put_into(request)
        return request

    async def _judge_all(self, group: _Group, response: inf.GenerateResponse) -> None:
        completion = response.completion
        for wanted in group.wanted:
            if completion.attempt not in wanted.attempts:
                continue
            problem, solution = wanted.problem, ""
            result: sb.Result | None
            if refused := sections.unanswered(completion):
                result = sb.Result(verdict=sb.VERDICT_REFUSED, detail=refused.detail)
            else:
                solution, result = await self._judged(problem, completion.text)
            if result is None:
                wanted.board.undecided += 1
                continue
            made = provenance(response)
            body = pb.EvaluationResult(completion=completion.text, solution=solution, result=result)
            await self._append(wanted, completion.attempt, body, made)

    async def _judged(self, problem: Problem, completion: str) -> tuple[str, sb.Result | None]:
        """Return the solution in a completion and its result, or None if the problem cannot be judged now."""
        try:
            solution = programs.clean(prompts.answered(problem, self._asked.style, completion), problem.entry_point)
        except Exception as error:  # parsing hostile text may raise anything
            log.warning("completion_unreadable", problem_id=problem.problem_id, exc_info=error)
            told = f"{INTERNAL_ERROR}: {type(error).__name__}: {encodable(str(error))}"[:_DETAIL_CHARS]
            return "", sb.Result(verdict=sb.VERDICT_REFUSED, detail=told)
        try:
            return solution, await self._judge.judge(problem, solution)
        except ReferenceFailed as failure:
            if problem.problem_id not in self.broken:
                log.warning("reference_failed", problem_id=problem.problem_id, message=str(failure))
            self.broken[problem.problem_id] = str(failure)
            return solution, None

    async def _append(self, wanted: _Wanted, attempt: int, body: pb.EvaluationResult, made: pb.Provenance) -> None:
        body.benchmark, body.problem_id = wanted.problem.benchmark, wanted.problem.problem_id
        body.model_revision = self._model.revision
        body.passed = body.result.verdict == sb.VERDICT_PASSED
        record = pb.Record(
            kind=pb.KIND_EVALUATION_RESULT,
            parents=[wanted.record.id],
            attempt=attempt,
            stage_config_id=wanted.board.config.id,
            evaluation_result=body,
            provenance=made,
        )
        try:
            kept = await self._store.append(record)
        except InvalidArgument as error:
            if not record.evaluation_result.completion:
                raise
            # The record is too large for the store: keep the verdict without the texts.
            log.warning("result_too_large", problem_id=body.problem_id, message=error.message)
            bare = sb.Result(
                verdict=body.result.verdict, detail=f"stored without texts: {error.message}"[:_DETAIL_CHARS]
            )
            bare.isolation, bare.image_digest = body.result.isolation, body.result.image_digest
            await self._append(wanted, attempt, pb.EvaluationResult(result=bare), made)
            return
        wanted.board.add(kept)
        self.tally.finish(None if body.passed else verdict_name(body.result.verdict), fresh=kept is record)
