"""Coordinators that carry out runs, evaluations, loops and experiments over fakes, and can be drained or killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common import records
from codealign.coordinator.evaluation.controller import EvaluationWorkload
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.experiments.controller import ExperimentWorkload
from codealign.coordinator.experiments.operations import Experiments
from codealign.coordinator.experiments.request import Checks
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.control import Controllers
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.loops.controller import LoopWorkload
from codealign.coordinator.loops.operations import Loops
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.controller import RunWorkload
from codealign.coordinator.runs.operations import Runs
from codealign.coordinator.settings import CoordinatorSettings
from fakes import FakeDataset, FakeInference, FakeSandbox, FakeTraining, toys
from fakes.virtual_time import LoopClock

LEASE_SECONDS = 15.0
PROBLEMS = 6
WRONG = "    return None\n"
EVALUATION_LIMITS = sb.Limits(wall_seconds=60, cpu_seconds=60, memory_bytes=2**31, output_bytes=2**20)
"""Minimum limits that executions of an evaluation need."""
_STARTED: list[Coordinator] = []
"""Keeps killed coordinators alive: garbage collection would run the cleanup of their suspended tasks."""


def write_benchmark(folder: Path, problems: int = PROBLEMS) -> Path:
    """Write a HumanEval file with this number of problems to its own directory."""
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": f"def add_{number}(x):\n",
            "entry_point": f"add_{number}",
            "canonical_solution": f"    return x + {number}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {1 + number}\n",
        }
        for number in range(problems)
    ]
    (folder / "HumanEval.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def settings(model: str = "", revision: str = "", **fields: Any) -> pb.EvaluationSettings:
    """Return the settings of an evaluation on the benchmark."""
    given = {"benchmarks": ["humaneval"], "prompt_style": "base", **fields}
    return pb.EvaluationSettings(model=pb.ModelChoice(model=model, revision=revision), **given)


def _judge(program: sb.Program) -> sb.Result:
    if program.code.startswith("x = "):  # of a toy pipeline
        return toys.judges(program)
    right = "return x + " in program.code
    return sb.Result(verdict=sb.VERDICT_PASSED if right else sb.VERDICT_FAILED_ASSERTION)


class Model(FakeInference):
    """Inference where the base model solves every other problem and a tuned one solves all."""

    def __init__(self) -> None:
        super().__init__(self.solve)
        self.models.clear()
        self.add_model("base", "rev-base", source="/models/base")
        self.seconds = 0.0
        """Duration of a completion."""
        self.right: Callable[[str, int], bool] = lambda model, number: model != "base" or number % 2 == 0
        """Whether a model solves the problem of this number."""

    async def solve(self, request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        if "def add_" not in (request.prompt or "def add_"):  # of a toy pipeline
            return toys.writes(request, sample)
        text = request.prompt or request.chat.messages[0].content
        number = int(text.partition("def add_")[2].partition("(")[0])
        await asyncio.sleep(self.seconds)
        body = f"    return x + {number}\n" if self.right(request.model, number) else WRONG
        written = body if request.prompt else f"def add_{number}(x):\n{body}```"
        return inf.Completion(text=written, finish_reason=inf.FINISH_REASON_END_TOKEN)

    async def load_model(self, request: inf.LoadModelRequest) -> inf.LoadModelResponse:
        response = await super().load_model(request)
        response.model.chat_template = self.models[response.model.name].chat_template = "{{ messages }}"
        return response


class Trainer(FakeTraining):
    """Training that stores a checkpoint."""

    def __init__(self, dataset: FakeDataset, *, at_once: bool = True) -> None:
        super().__init__(at_once=at_once)
        self._dataset = dataset

    def finish(self, training_id: str, message: str = "") -> None:
        super().finish(training_id, message)
        if not message:
            training = self.trainings[training_id]
            made = pb.Checkpoint(artifact_url=training.artifact_url, revision=f"rev-{training_id}")
            (record,) = self._dataset.put(
                pb.Record(kind=pb.KIND_CHECKPOINT, stage_config_id=training_id, checkpoint=made)
            )
            training.checkpoint_id = record.id

    @property
    def only(self) -> tr.Training:
        """Return the only training."""
        (training,) = self.trainings.values()
        return training


class Link:
    """A coordinator's connection to a service."""

    def __init__(self, service: Any, cut: asyncio.Event) -> None:
        self._service, self._cut = service, cut
        self._never = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._service, name)

        async def call(request: Any) -> Any:
            await self._or_never()
            answer = await method(request)
            await self._or_never()
            return answer

        return call

    async def execute(self, request: Any, *, timeout: float) -> Any:
        await self._or_never()
        return await self._service.execute(request, timeout=timeout)

    async def generate(self, request: Any, *, timeout: float) -> AsyncGenerator[Any]:
        await self._or_never()
        async for response in self._service.generate(request, timeout=timeout):
            await self._or_never()
            yield response

    async def _or_never(self) -> None:
        """Block forever if the process was killed: it gets no response and makes no calls."""
        if self._cut.is_set():
            await self._never.wait()


class Coordinator:
    """One coordinator process."""

    def __init__(self, world: World, holder: str, **changes: Any) -> None:
        cut = self._cut = asyncio.Event()
        self.services = Services(
            *(Link(each, cut) for each in (world.dataset, world.inference, world.sandbox, world.training))
        )
        given = CoordinatorSettings(
            dataset_address="dataset:1",
            inference_address="inference:1",
            sandbox_address="sandbox:1",
            evaluation_data=world.benchmarks,
            **{"training_address": "training:1", **changes},
        )
        evaluating = EvaluationWorkload(given, self.services)
        self.evaluations = Evaluations(given, self.services, evaluating, self._poke)
        running = RunWorkload(given, self.services, BenchmarkTexts())
        looping = LoopWorkload(given, self.services, self.evaluations)
        self.controllers = Controllers(
            self.services.dataset, [running, evaluating, looping], holder, LEASE_SECONDS, 5.0
        )
        assigned = self.controllers.assigned
        self.loops = Loops(given, self.services, self.evaluations, self._poke, assigned.get)
        self.runs = Runs(given, self.services, BenchmarkTexts(), running, self._poke, assigned)
        checks = Checks(self.services, self.runs, self.evaluations)
        self.experiments = Experiments(given, self.services, checks, self._poke, assigned)
        self.controllers.add(ExperimentWorkload(self.services, self.runs, self.loops, self.evaluations))
        self.draining = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        _STARTED.append(self)

    def _poke(self, subject: str, number: int) -> None:
        self.controllers.poke(subject, number)

    async def _run(self) -> None:
        async with self.controllers.working(self.draining):
            await self.draining.wait()

    async def drain(self) -> None:
        """Drain as on SIGTERM, and return once all leases are released."""
        self.draining.set()
        await self._task

    def kill(self) -> None:
        """Act as killed by SIGKILL: no further call reaches any service."""
        self._cut.set()

    async def evaluate(self, given: pb.EvaluationSettings) -> list[api.EvaluateResponse]:
        """Start an evaluation and watch it until it ends."""
        return [message async for message in self.evaluations.evaluate(api.EvaluateRequest(settings=given))]


class World:
    """The services, and runs in the store.

    Args:
        folder: The test's directory, for the benchmark.
        at_once: Whether a training succeeds as soon as it is submitted.
    """

    def __init__(self, folder: Path, *, at_once: bool = True) -> None:
        self.benchmarks = write_benchmark(folder / "benchmarks")
        self.dataset = FakeDataset(LoopClock())
        self.inference = Model()
        self.sandbox = FakeSandbox(_judge)
        self.sandbox.runner.profile_limits[0].maxima.MergeFrom(EVALUATION_LIMITS)
        self.training = Trainer(self.dataset, at_once=at_once)

    def run(self, state: pb.RunState.ValueType = pb.RUN_STATE_SUCCEEDED, version: str = "v-1") -> pb.Record:
        """Store a run of the base model in this state."""
        body = pb.Run(model=pb.ModelChoice(model="base", revision="rev-base"))
        run = records.complete(pb.Record(kind=pb.KIND_RUN, run=body))
        self.dataset.put(run)
        self.ran(run, state, version)
        return run

    def ran(self, run: pb.Record, state: pb.RunState.ValueType, version: str = "") -> None:
        """Append the run's next event."""
        number = len([each for each in self.dataset.of_kind(pb.KIND_RUN_EVENT) if run.id in each.parents])
        event = pb.RunEvent(state=state, version=version)
        self.dataset.put(pb.Record(kind=pb.KIND_RUN_EVENT, parents=[run.id], attempt=number, run_event=event))

    async def standing(self, kind: pb.Kind.ValueType) -> requests.Standing:
        """Return the standing of the only record of a kind."""
        (record,) = self.dataset.of_kind(kind)
        return await requests.standing(self.dataset, record.id)

    def results(self) -> dict[str, tuple[str, bool]]:
        """Return the solution and outcome of every EvaluationResult, by id."""
        found = self.dataset.of_kind(pb.KIND_EVALUATION_RESULT)
        return {each.id: (each.evaluation_result.solution, each.evaluation_result.passed) for each in found}

    def kill_at_append(self, coordinator: Coordinator, number: int) -> None:
        """Kill a coordinator after the store has processed its append of this number, before the response."""

        def after(method: str, request: Message) -> None:
            if method == "append" and self.dataset.control.calls["append"] == number:
                coordinator.kill()

        self.dataset.control.after = after

    async def until(self, happened: Callable[[], Awaitable[bool]], within: float = 600.0) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(within):
            while not await happened():  # noqa: ASYNC110 - fakes send no notifications
                await asyncio.sleep(0.1)

    async def until_ended(self, kind: pb.Kind.ValueType) -> requests.Standing:
        """Wait until the only record of a kind is in the wanted state, or has failed."""

        async def ended() -> bool:
            return bool(self.dataset.of_kind(kind)) and (await self.standing(kind)).settled(repeatable=True)

        await self.until(ended)
        return await self.standing(kind)
