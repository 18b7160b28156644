"""Evaluations: inference writes, the sandbox judges, the store keeps each result.

A result's id follows from the problem, the configuration and the sample's number, so what is there is not done
again: a call that was killed is continued by the same call, and a finished one is answered from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.clients import Clients
from codealign.common.errors import InvalidArgument
from codealign.common.logs import get_logger
from codealign.coordinator.ground.calls import Completions, provenance
from codealign.coordinator.evaluation import benchmarks, errors, programs, prompts
from codealign.coordinator.evaluation.judging import Judge
from codealign.coordinator.evaluation.known import KnownResults
from codealign.coordinator.evaluation.problems import Benchmark, Problem
from codealign.coordinator.evaluation.request import Asked, checked, configuration, sample_seed
from codealign.coordinator.evaluation.results import Board
from codealign.coordinator.reading import sections
from codealign.coordinator.ground.faults import Refused, of_service
from codealign.coordinator.ground.tally import StageTally
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)
ItemT = TypeVar("ItemT")
COLLECTION = "evaluations"
"""What evaluations append is a member of this collection."""
PROGRESS_SECONDS = 0.5
_GET = 200
_SAMPLES_PER_CALL = 64


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


class Evaluator:
    """Evaluates models."""

    def __init__(self, settings: CoordinatorSettings, clients: Clients) -> None:
        self._settings, self._clients = settings, clients
        self._known = KnownResults()

    async def evaluate(self, request: api.EvaluateRequest) -> AsyncGenerator[api.EvaluateResponse]:
        """Progress of each benchmark as it changes, and each benchmark's result when it is through.

        Closing the generator stops the work.

        Raises:
            InvalidArgument: Names every field that is wrong.
            FailedPrecondition: A benchmark's file is damaged, or the work cannot go on without a person.
            NotFound: A benchmark's problems cannot be had, or no such model is loaded.
            Unavailable: Inference is away.
        """
        asked = checked(request)
        loaded = [
            await asyncio.to_thread(benchmarks.load, name, self._settings.evaluation_data) for name in asked.benchmarks
        ]
        if request.validate_only:
            for benchmark in loaded:
                total = len(benchmark.spread(asked.limit))
                yield api.EvaluateResponse(benchmark=benchmark.name, problems_total=total)
            return
        model = await self._model(asked)
        async with RunStore(self._clients, COLLECTION).flushing() as store:
            work = _Work(self._settings, self._clients, self._known, store, asked, model)
            boards = await work.prepare(loaded)
            for board in boards:
                log.info(
                    "evaluation_started",
                    evaluation_id=board.config.id,
                    benchmark=board.settings["benchmark"],
                    problems=len(board.problem_ids),
                    reused=board.reused,
                )
            task = asyncio.create_task(work.run())
            try:
                async with contextlib.aclosing(_reports(boards, task)) as messages:
                    async for message in messages:
                        yield message
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise errors.told(error) from error

    async def _model(self, asked: Asked) -> inf.Model:
        choice = asked.model
        try:
            request = inf.GetModelRequest(name=choice.model)
            model = (await self._clients.call(self._clients.inference.GetModel, request)).model
        except grpc.aio.AioRpcError as error:
            raise of_service(error, "inference") from error
        if choice.revision and choice.revision != model.revision:
            raise InvalidArgument(
                "model.revision",
                f"inference serves {model.name} at revision {model.revision[:12]}, not {choice.revision[:12]}",
            )
        if asked.style == prompts.TUNED and not model.chat_template:
            raise InvalidArgument(
                "prompt_style", f'model {model.name} has no chat template: it can be asked in the style "base" alone'
            )
        return model


async def _reports(boards: Sequence[Board], task: asyncio.Task[None]) -> AsyncGenerator[api.EvaluateResponse]:
    """What is told while the work goes on; a board's result once nothing is left to do for it."""
    told: dict[str, api.EvaluateResponse] = {}
    open_boards = list(boards)
    while open_boards:
        ended = task.done()
        for board in list(open_boards):
            message = board.progress()
            if message.problems_done == message.problems_total or (ended and task.exception() is None):
                message.evaluation.CopyFrom(await asyncio.to_thread(board.evaluation))
                open_boards.remove(board)
                log.info("evaluation_ended", evaluation_id=board.config.id, undecided=board.undecided)
            if told.get(board.config.id) != message:
                told[board.config.id] = message
                yield message
        if ended:
            return
        await asyncio.wait({task}, timeout=PROGRESS_SECONDS if open_boards else None)


class _Work:
    """One call's work."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        clients: Clients,
        known: KnownResults,
        store: RunStore,
        asked: Asked,
        model: inf.Model,
    ) -> None:
        self._store, self._asked, self._model = store, asked, model
        tally = StageTally()
        slots = asyncio.Semaphore(settings.generations_in_flight)
        self._completions = Completions(clients, tally, slots, _always, settings.generation_timeout_seconds)
        self._judge = Judge(clients, asyncio.Semaphore(settings.executions_in_flight), tally, _always, known)
        self._in_flight = settings.seeds_in_flight
        self._groups: dict[tuple[str, str], _Group] = {}

    async def prepare(self, loaded: Sequence[Benchmark]) -> list[Board]:
        """Append what the results refer to, and find what is there already."""
        return [await self._prepare(benchmark) for benchmark in loaded]

    async def _prepare(self, benchmark: Benchmark) -> Board:
        asked = self._asked
        problems = benchmark.spread(asked.limit)
        config = configuration(asked, benchmark, self._model.revision)
        ids = tuple(problem.problem_id for problem in problems)
        board = Board(config, self._model.name, asked.samples, ids)
        parents = [problem.record() for problem in problems]
        await self._store.append_all([config, *parents])
        attempts = range(asked.samples)
        results = {_result_id(parent.id, attempt, config.id): attempt for parent in parents for attempt in attempts}
        for some in _chunks(list(results), _GET):
            for record in (await self._store.get(some)).values():
                board.add(record)
        board.reused = len(board.done())
        for problem, parent in zip(problems, parents, strict=True):
            missing = set(attempts) - set(board.outcomes.get(problem.problem_id, {}))
            if missing:
                self._want(_Wanted(board, problem, parent, missing))
        return board

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
                await self._solve(group)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._in_flight, len(self._groups))):
                tasks.create_task(work())

    async def _solve(self, group: _Group) -> None:
        for attempts in _chunks(group.attempts, _SAMPLES_PER_CALL):
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
            made.prompt_suffix = group.question.written
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


def _always() -> None:
    """New work may always start: an evaluation ends with its call."""


def _chunks(items: Sequence[ItemT], size: int) -> list[Sequence[ItemT]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
