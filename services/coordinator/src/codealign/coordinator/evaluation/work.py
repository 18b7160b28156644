"""The work of an evaluation: inference writes, the sandbox judges, the store keeps each result.

A result's id follows from the problem, the configuration and the sample's number, so what is there is not done again,
whoever did it: an evaluation that was killed goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.sequences import batched
from codealign.coordinator.evaluation import programs, prompts
from codealign.coordinator.evaluation.judging import Judge
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import Benchmark, Problem
from codealign.coordinator.evaluation.request import Asked, configuration, sample_seed
from codealign.coordinator.evaluation.results import Board
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.calls import Completions, provenance
from codealign.coordinator.ground.faults import Refused
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.windows import Window, of_inference, of_sandbox
from codealign.coordinator.reading import sections
from codealign.coordinator.settings import CoordinatorSettings

ItemT = TypeVar("ItemT")
COLLECTION = "evaluations"
"""What evaluations append is a member of this collection."""
_GET = 100
"""Results that are read at once: the largest of them (two texts of MAX_TOKENS) still fit into one answer."""
_SAMPLES_PER_CALL = 64
_MOST_PROBLEMS = 1024
"""Begun at once where the settings do not say: more than an engine has slots for, and little memory."""


@dataclass
class Sheet:
    """A benchmark of one evaluation: what is known of it, and what is missing."""

    board: Board
    problems: Sequence[Problem]
    records: Sequence[pb.Record]
    """The problems' records, in the same order."""
    samples: int

    @classmethod
    def of(cls, asked: Asked, benchmark: Benchmark) -> Sheet:
        """With nothing known yet.

        Args:
            asked: With the model's name and revision.
            benchmark: Its problems.
        """
        problems = benchmark.spread(asked.limit)
        config = configuration(asked, benchmark, asked.model.revision)
        ids = tuple(problem.problem_id for problem in problems)
        board = Board(config, asked.model.model, asked.samples, ids)
        return cls(board, problems, [problem.record() for problem in problems], asked.samples)

    async def read(self, get: Callable[[Sequence[str]], Awaitable[Iterable[pb.Record]]]) -> None:
        """Take in what the store holds and this does not yet.

        Args:
            get: Gives those of so many records, by id, that are there.
        """
        config = self.board.config.id
        missing = [
            _result_id(record.id, attempt, config)
            for problem, record in zip(self.problems, self.records, strict=True)
            for attempt in sorted(self.missing(problem))
        ]
        for some in batched(missing, _GET):
            for found in await get(some):
                self.board.add(found)

    def missing(self, problem: Problem) -> set[int]:
        """The samples of a problem that are not there."""
        return set(range(self.samples)) - set(self.board.outcomes.get(problem.problem_id, {}))

    @property
    def undecided(self) -> int:
        """Samples that are missing."""
        return sum(len(self.missing(problem)) for problem in self.problems)


@dataclass
class _Wanted:
    """Samples of one problem that are not there yet."""

    board: Board
    problem: Problem
    record: pb.Record
    attempts: set[int]


@dataclass
class _Group:
    """Problems of several benchmarks that ask the same: their completions are generated once."""

    question: prompts.Question
    problem_id: str
    wanted: list[_Wanted] = field(default_factory=list)

    @property
    def attempts(self) -> list[int]:
        """The samples to generate."""
        return sorted(set[int]().union(*(each.attempts for each in self.wanted)))


@dataclass(frozen=True)
class Limits:
    """How much may be in flight, over all evaluations of a coordinator."""

    generations: Window
    """Samples at the engine."""
    executions: Window
    """Programs at the sandbox."""
    generation_seconds: float
    """One call to inference may take so long."""
    problems: int
    """Problems of one evaluation that are begun and not done: bounds memory."""

    @classmethod
    def of(cls, settings: CoordinatorSettings, services: Services) -> Limits:
        """As the coordinator's settings say."""
        return cls(
            of_inference(services.inference, settings.generations_in_flight),
            of_sandbox(services.sandbox, settings.executions_in_flight),
            settings.generation_timeout_seconds,
            settings.seeds_in_flight or _MOST_PROBLEMS,
        )


class Work:
    """What is left to do of an evaluation.

    Args:
        services: Inference and the sandbox are used.
        limits: How much may be in flight.
        known: Results of executions, of other evaluations too.
        store: Under the evaluation's lease.
        asked: What was asked for.
        model: That is evaluated, as inference has it.
        assignment: Says whether new work may start, and is told what is waited for.
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
    ) -> None:
        self._store, self._asked, self._model, self._gate = store, asked, model, assignment.gate
        tally, gate, waiting = StageTally(), assignment.gate, assignment.waiting
        self._completions = Completions(
            services.inference, tally, limits.generations, gate, limits.generation_seconds, waiting
        )
        self._judge = Judge(services.sandbox, limits.executions, tally, gate, known, waiting)
        self._in_flight = limits.problems
        self._groups: dict[tuple[str, str], _Group] = {}

    async def prepare(self, sheets: Sequence[Sheet]) -> None:
        """Append what the results refer to, and find what is there already."""
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
        """Generate and judge everything that is missing."""
        waiting = iter(list(self._groups.values()))

        async def work() -> None:
            for group in waiting:
                self._gate()
                await self._solve(group)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._in_flight, len(self._groups))):
                tasks.create_task(work())

    async def _solve(self, group: _Group) -> None:
        for attempts in batched(group.attempts, _SAMPLES_PER_CALL):
            request = self._request(group, attempts)
            left = set(attempts)
            try:
                async with asyncio.TaskGroup() as judging, contextlib.aclosing(self._completions.of(request)) as given:
                    async for response in given:
                        left.remove(response.completion.attempt)
                        judging.create_task(self._judge_all(group, response))
            except* Refused as refused:
                refusal = refused.exceptions[0]
                if not isinstance(refusal, Refused) or refusal.field != "prompt":
                    raise
                for attempt in sorted(left):
                    await self._refuse(group, attempt, str(refusal))

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
                text = prompts.answered(problem, self._asked.style, completion.text)
                solution = programs.clean(text, problem.entry_point)
                result = await self._judge.judge(problem, solution)
            if result is None:
                wanted.board.undecided += 1
                continue
            made = provenance(response)
            body = pb.EvaluationResult(completion=completion.text, solution=solution, result=result)
            await self._append(wanted, completion.attempt, body, made)

    async def _refuse(self, group: _Group, attempt: int, why: str) -> None:
        """A prompt that the model has no room for is a sample that failed."""
        for wanted in group.wanted:
            if attempt in wanted.attempts:
                result = sb.Result(verdict=sb.VERDICT_REFUSED, detail=f"the prompt {why}")
                made = pb.Provenance(model=self._model.name, model_revision=self._model.revision)
                await self._append(wanted, attempt, pb.EvaluationResult(result=result), made)

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
        wanted.board.add(await self._store.append(record))


def _result_id(problem_id: str, attempt: int, config_id: str) -> str:
    return records.derive_id(pb.KIND_EVALUATION_RESULT, [problem_id], attempt=attempt, stage_config_id=config_id)
