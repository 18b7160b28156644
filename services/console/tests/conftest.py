"""The console over a real dataset service and small coordinators and trainers, all in this process."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx2
import pytest_asyncio

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as coordinator_rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.api.training.v1 import training_pb2_grpc as training_rpc
from codealign.common.errors import NotFound
from codealign.common.health import Readiness
from codealign.common.interceptors import ServerInterceptor
from codealign.common.records import complete
from codealign.console.app import application
from codealign.console.reading import Services
from codealign.dataset import service
from codealign.dataset.settings import DatasetSettings
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database

TASK, CODE, TESTS = "Add one to `x`.", "def f(x):\n    return x + 1\n", "assert f(1) == 2\n"


@dataclass
class Tree:
    """Records from a seed to its rows, with the same text in every field that a model or a file may have written."""

    text: str = ""
    answers: int = 2
    run: pb.Record = field(init=False)
    seed: pb.Record = field(init=False)
    answer: pb.Record = field(init=False)
    verdict: pb.Record = field(init=False)
    row: pb.Record = field(init=False)
    records: list[pb.Record] = field(init=False)

    def __post_init__(self) -> None:
        text = self.text
        self.run = complete(pb.Record(kind=pb.KIND_RUN, run=pb.Run(name=text or "a run", pipeline="toy")))
        config = complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=pb.StageConfig(name=text or "responses")))
        self.seed = complete(
            pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=CODE + text, name=text or "f", path=text or "a.py", line=3))
        )
        prefix = complete(pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text=f"Examples {text}")))
        task = pb.Instruction(text=TASK + text, category=text or "function", difficulty=text)
        asked = complete(pb.Record(kind=pb.KIND_INSTRUCTION, parents=[self.seed.id], instruction=task))
        self.records = [self.run, config, self.seed, prefix, asked]
        for number in range(self.answers):
            written = pb.Completion(prompt_suffix=f"Then {text}", text=f"Sure. {text}", finish_reason=text or "length")
            completion = complete(
                pb.Record(kind=pb.KIND_COMPLETION, parents=[prefix.id], key=str(number), completion=written)
            )
            body = pb.Response(answer=f"Like this:\n```python\n{CODE}```\n{text}", code=CODE + text, tests=TESTS + text)
            answer = pb.Record(kind=pb.KIND_RESPONSE, attempt=number, stage_config_id=config.id, response=body)
            answer.parents.extend([asked.id, completion.id])
            answer.provenance.CopyFrom(pb.Provenance(model=text or "nano", prompt_tokens=9, generated_tokens=7))
            passed = number == 0
            result = sb.Result(
                verdict=sb.VERDICT_PASSED if passed else sb.VERDICT_RAISED,
                detail=text or "a detail",
                stdout=sb.Output(data=f"printed {text}".encode(), total_bytes=100),
            )
            verdict = pb.Record(kind=pb.KIND_VERDICT, parents=[complete(answer).id])
            verdict.verdict.result.CopyFrom(result)
            self.records += [completion, answer, complete(verdict)]
            if passed:
                self.answer, self.verdict = answer, verdict
        refused = pb.Rejection(rejected_kind=pb.KIND_RESPONSE, reason="cut-off", detail=text, evidence=text)
        chosen = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule="chosen", detail=text)
        example = pb.Example(instruction=TASK + text, response=CODE + text, tests=TESTS + text, category="function")
        self.row = complete(pb.Record(kind=pb.KIND_EXAMPLE, parents=[self.answer.id, self.verdict.id], example=example))
        self.records += [
            complete(pb.Record(kind=pb.KIND_REJECTION, parents=[asked.id], attempt=7, rejection=refused)),
            complete(pb.Record(kind=pb.KIND_DECISION, parents=[self.answer.id], decision=chosen)),
            self.row,
        ]


class Coordinator(coordinator_rpc.CoordinatorServiceServicer):
    """Answers with what a test puts into it."""

    def __init__(self) -> None:
        self.reports: dict[str, api.GetReportResponse] = {}
        self.evaluations: list[api.GetEvaluationResponse] = []
        self.experiments: list[api.GetExperimentResponse] = []
        self.experiment_seconds = 0.0
        """How long an experiment's results take."""
        self.seconds = 0.0
        """How long it takes to list the runs."""
        self.report_seconds = 0.0
        """How long a report takes."""
        self.report_asked = asyncio.Event()

    def add(self, run: pb.Record, state: pb.RunState.ValueType = pb.RUN_STATE_SUCCEEDED, text: str = "") -> None:
        """Add a run with one stage."""
        status = api.RunStatus(id=run.id, config=run.run, state=state, message=text, notes=[text] if text else [])
        status.stages.add(stage=text or "responses", expected=4, done=3, kept=2, dropped=1, rate=0.5)
        report = api.GetReportResponse(run=status, verdicts={"PASSED": 1, "RAISED": 1}, rows=1)
        report.stages.add(stage=text or "responses", items=3, kept=2, reasons={text or "cut-off": 1}, wall_seconds=2.0)
        self.reports[run.id] = report

    async def ListRuns(self, request: api.ListRunsRequest, context: Any) -> api.ListRunsResponse:
        await asyncio.sleep(self.seconds)
        return api.ListRunsResponse(runs=[report.run for report in self.reports.values()])

    async def GetRun(self, request: api.GetRunRequest, context: Any) -> api.GetRunResponse:
        return api.GetRunResponse(run=self._of(request.run).run)

    async def GetReport(self, request: api.GetReportRequest, context: Any) -> api.GetReportResponse:
        self.report_asked.set()
        await asyncio.sleep(self.report_seconds)
        return self._of(request.run)

    async def ListEvaluations(self, request: api.ListEvaluationsRequest, context: Any) -> api.ListEvaluationsResponse:
        return api.ListEvaluationsResponse(evaluations=[one.evaluation for one in self.evaluations])

    async def GetEvaluation(self, request: api.GetEvaluationRequest, context: Any) -> api.GetEvaluationResponse:
        for one in self.evaluations:
            if one.evaluation.id.startswith(request.evaluation):
                return one
        raise NotFound(f"evaluation {request.evaluation!r} not found")

    async def ListExperiments(self, request: api.ListExperimentsRequest, context: Any) -> api.ListExperimentsResponse:
        listed = api.ListExperimentsResponse(experiments=[one.experiment for one in self.experiments])
        for one in listed.experiments:
            one.ClearField("cells")
        return listed

    async def GetExperiment(self, request: api.GetExperimentRequest, context: Any) -> api.GetExperimentResponse:
        await asyncio.sleep(self.experiment_seconds)
        for one in self.experiments:
            if one.experiment.id.startswith(request.experiment):
                return one
        raise NotFound(f"no experiment matches {request.experiment!r}; see `codealign experiment ls` for the ids")

    def _of(self, run: str) -> api.GetReportResponse:
        if run not in self.reports:
            raise NotFound(f"run {run!r} not found")
        return self.reports[run]


class Trainer(training_rpc.TrainingServiceServicer):
    """Answers with what a test puts into it."""

    def __init__(self) -> None:
        self.trainings: list[tr.Training] = []

    async def ListTrainings(self, request: tr.ListTrainingsRequest, context: Any) -> tr.ListTrainingsResponse:
        return tr.ListTrainingsResponse(trainings=self.trainings)

    async def GetTraining(self, request: tr.GetTrainingRequest, context: Any) -> tr.GetTrainingResponse:
        for training in self.trainings:
            if training.id == request.id:
                return tr.GetTrainingResponse(training=training)
        raise NotFound(f"training {request.id!r} not found")


AnyTree = TypeVar("AnyTree", bound=Tree)


class World:
    """The services, and a browser without a screen."""

    def __init__(self, database: Database, browser: httpx2.AsyncClient, addresses: dict[str, str]) -> None:
        self.database, self.browser, self.addresses = database, browser, addresses
        self.coordinator = Coordinator()  # type: ignore[abstract]  # the other methods are unimplemented
        self.trainer = Trainer()  # type: ignore[abstract]

    def store(self, tree: AnyTree, *, state: pb.RunState.ValueType = pb.RUN_STATE_SUCCEEDED) -> AnyTree:
        """Store a tree's records as those of its run."""
        append(self.database, tree.records, collection=tree.run.id)
        self.coordinator.add(tree.run, state, tree.text)
        return tree

    async def page(self, url: str, status: int = 200) -> str:
        """Return a page's HTML."""
        answer = await self.browser.get(url)
        assert answer.status_code == status, answer.text
        return answer.text

    async def words(self, url: str, status: int = 200) -> str:
        """Return what is read on a page."""
        return words(await self.page(url, status))


class Reading(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def words(html: str) -> str:
    """Return what is read on a page, with single spaces."""
    return re.sub(r"\s+", " ", " ".join(Reading(html).texts))


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as found:
        yield found


@contextlib.asynccontextmanager
async def serving(folder: Path, **dataset_settings: Any) -> AsyncIterator[World]:
    """Serve everything in this process."""
    server = grpc.aio.server(
        interceptors=[ServerInterceptor(60.0)], options=[("grpc.max_receive_message_length", 64 * 2**20)]
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    addresses = dict.fromkeys(("dataset", "coordinator", "training"), address)
    services = Services(lambda: addresses)
    transport = httpx2.ASGITransport(application(services), raise_app_exceptions=False)
    settings = DatasetSettings(data_dir=folder / "data", **dataset_settings)
    async with (
        service.build(settings, Readiness()) as registrations,
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8484") as browser,
    ):
        database = service.open_database(settings)
        world = World(database, browser, addresses)
        for registration in registrations:
            registration.add(registration.servicer, server)
        coordinator_rpc.add_CoordinatorServiceServicer_to_server(world.coordinator, server)
        training_rpc.add_TrainingServiceServicer_to_server(world.trainer, server)
        await server.start()
        try:
            yield world
        finally:
            await services.close()
            await server.stop(0)
            database.close()
