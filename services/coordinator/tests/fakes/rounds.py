"""Coordinators that carry out series of rounds over fakes, with runs whose data a test decides."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common import records
from codealign.coordinator.ground.assignment import Assignment, Outcome, PauseWanted
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.rounds.controller import SeriesWorkload
from codealign.coordinator.rounds.operations import Rounds
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.config import stage_configs, with_defaults
from codealign.coordinator.runs.operations import Runs
from codealign.coordinator.servicer import CoordinatorServicer
from codealign.coordinator.settings import CoordinatorSettings
from fakes.following import WRONG, Coordinator, World
from fakes.sandbox import IMAGE_DIGEST, PYTHON_VERSION

SECONDS = 5.0
"""Duration of a run."""


@dataclass
class Data:
    """What a round's run makes."""

    rows: int = 4
    responses: int = 8
    text: str = "write a function named f{} that adds {} to its argument and returns it"
    """Instruction of a row; both fields are its number."""
    fails: str = ""
    """Message with which the run fails."""
    pauses: str = ""
    """Message with which the breaker pauses the run, once."""
    solves: bool = True
    """Whether the model that is tuned on the data solves the benchmark's problems."""


class RoundsWorld(World):
    """The services, and what each round gives."""

    def __init__(self, folder: Path, *, at_once: bool = True) -> None:
        super().__init__(folder, at_once=at_once)
        self.data: dict[int, Data] = {}
        """Data of rounds that do not have the default data, by number."""
        self.numbers: dict[int, int] = {}
        """Number of the round by the run's seed, in the order in which runs began."""
        self.inference.writes = self._write

    async def _write(self, request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
        """Solve problems, unless the model was tuned on the data of a round that does not teach to."""
        completion = await self.inference.solve(request, sample)
        for training in self.training.trainings.values():
            if request.model.endswith(training.id[:8]) and not self.of(int(training.spec.dataset[2:])).solves:
                completion.text = f"def add_0(x):\n{WRONG}```"
        return completion

    def of(self, number: int) -> Data:
        """Return what a round gives."""
        return self.data.get(number, Data())

    def first(self, **fields: Any) -> pb.Run:
        """Return the configuration of the first round's run."""
        run = pb.Run(pipeline="selfcodealign", seeds=pb.SeedSelection(collection="seeds"), seed=7, **fields)
        run.model.model, run.model.revision = "base", "rev-base"
        run = with_defaults(run)
        run.execution.image_digest, run.execution.python_version = IMAGE_DIGEST, PYTHON_VERSION
        return run

    def runs(self) -> list[pb.Record]:
        """Return the runs in the order in which they were created."""
        found = self.dataset.of_kind(pb.KIND_RUN)
        return sorted(found, key=lambda record: record.provenance.created_at.ToNanoseconds())

    def made(self) -> dict[str, list[str]]:
        """Return the ids of all records that do not depend on who wrote them, by kind."""
        kinds = (pb.KIND_RUN, pb.KIND_LOOP, pb.KIND_SERIES, pb.KIND_EXAMPLE, pb.KIND_EVALUATION_RESULT)
        return {pb.Kind.Name(kind): [record.id for record in self.dataset.of_kind(kind)] for kind in kinds}


class DataWorkload:
    """Runs that write the data of their round."""

    kind = pb.KIND_RUN
    prefix = "run"
    repeatable = False

    def __init__(self, world: RoundsWorld) -> None:
        self._world = world
        self.live: dict[str, Any] = {}

    async def work(self, assignment: Assignment) -> Outcome:
        world, run = self._world, assignment.subject.run
        number = world.numbers.setdefault(run.seed, len(world.numbers) + 1)
        data = world.of(number)
        await asyncio.sleep(SECONDS)
        assignment.gate()
        models = [run.model, *(stage.model for stage in run.stages if stage.HasField("model"))]
        for choice in models[1:] or models:
            there = world.inference.models.get(choice.model)
            if there is None or there.revision != choice.revision:
                raise RunFailed(f"inference: model {choice.model} is not loaded")
        if data.pauses:
            message, data.pauses = data.pauses, ""
            raise PauseWanted(message)
        if data.fails:
            raise RunFailed(data.fails)
        configs = stage_configs(run)
        await assignment.store.append_all(configs.all())
        for at in range(data.responses):
            await assignment.store.append_all(_response(assignment.subject, configs, data, at))
        return Outcome("done", f"v-{number}" if data.rows else "")


def _response(run: pb.Record, configs: Any, data: Data, at: int) -> list[pb.Record]:
    """Return a response with its verdict, and with its row if it passed."""
    made = pb.Record(kind=pb.KIND_RESPONSE, parents=[run.id], attempt=at, stage_config_id=configs["responses"].id)
    made.response.answer = f"return x + {at}"
    response = records.complete(made)
    judged = pb.Record(kind=pb.KIND_VERDICT, parents=[response.id], stage_config_id=configs["execution"].id)
    passed = at < data.rows
    judged.verdict.result.verdict = sb.VERDICT_PASSED if passed else sb.VERDICT_FAILED_ASSERTION
    found = [response, judged]
    if passed:
        row = pb.Record(kind=pb.KIND_EXAMPLE, parents=[response.id], stage_config_id=configs["selection"].id)
        row.example.instruction = data.text.format(at, at)
        row.example.response = f"def f{at}(x):\n    return x + {at}"
        row.example.concepts.extend(["Adding", f"concept {at}"])
        found.append(row)
    return found


class RoundsCoordinator(Coordinator):
    """One coordinator process that also carries out runs and series."""

    def __init__(self, world: RoundsWorld, holder: str, **changes: Any) -> None:
        super().__init__(world, holder, **changes)
        given = CoordinatorSettings(dataset_address="-", inference_address="-", sandbox_address="-")
        running: Any = DataWorkload(world)
        self.runs = Runs(given, self.services, BenchmarkTexts(), running, self._poke, self.controllers.assigned)
        self.rounds = Rounds(self.services, self.loops, self._poke, lambda key: self.controllers.assigned.get(key))
        self.controllers.add(running, SeriesWorkload(self.services, self.runs, self.loops, self.evaluations))
        nothing: Any = None
        self.servicer = CoordinatorServicer(
            self.runs, self.loops, self.rounds, self.evaluations, nothing, self.services, self.draining
        )

    async def create(self, request: api.CreateRunRequest) -> pb.Record:
        """Create the first round's run and the series, as CreateRun does after its checks."""
        run, _ = await self.runs.create(request.config)
        await self.rounds.wanted(run, request)
        return run


def asked(world: RoundsWorld, number: int = 2, *, loop: pb.Loop | None = None, **series: Any) -> api.CreateRunRequest:
    """Return a request for a series."""
    if loop is None:
        evaluations = [pb.EvaluationSettings(benchmarks=["humaneval"])]
        loop = pb.Loop(training=tr.TrainingSpec(epochs=2), evaluations=evaluations)
    return api.CreateRunRequest(config=world.first(), loop=loop, series=pb.RoundSeries(number=number, **series))
