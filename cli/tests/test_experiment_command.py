"""`codealign experiment`: forecast, progress, files, and what an interruption does."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as api_grpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.inference.v1 import inference_pb2_grpc as inference_rpc
from codealign.cli import experiments
from codealign.cli.commands import experiment as command
from codealign.cli.experiment_config import OWN, Choices, chosen
from codealign.cli.failures import Failure
from codealign.cli.options import target
from codealign.cli.stack import Options

ID = "0123456789abcdef" * 2
RUNNING, SUCCEEDED, PAUSED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_PAUSED
TEXT = """
name: my comparison / 1
description: Why.
preset: nano
run: {seeds: {collection: mine}}
arms: [base, {name: passes, strategy: random-pass}]
claims: [{statement: It helps., better: passes, than: base}]
"""


class Coordinator(api_grpc.CoordinatorServiceServicer):
    """A coordinator that tells of an experiment which ends, or never does."""

    def __init__(self, pipeline: api.Pipeline, *, ends: bool = True) -> None:
        self.pipeline, self.ends = pipeline, ends
        self.created: list[api.CreateExperimentRequest] = []
        self.watched, self.paused = asyncio.Event(), False

    def status(self, state: pb.RunState.ValueType, message: str = "") -> api.ExperimentStatus:
        found = api.ExperimentStatus(id=ID, config=self.created[0].config, state=state, message=message)
        found.cells.add(arm="base", state=SUCCEEDED)
        found.cells.add(arm="passes", state=state, rows=12)
        return found

    async def ListPipelines(self, request: api.ListPipelinesRequest, context: Any) -> api.ListPipelinesResponse:
        return api.ListPipelinesResponse(pipelines=[self.pipeline])

    async def GetPipeline(self, request: api.GetPipelineRequest, context: Any) -> api.GetPipelineResponse:
        return api.GetPipelineResponse(pipeline=self.pipeline)

    async def PlanRun(self, request: api.PlanRunRequest, context: Any) -> api.PlanRunResponse:
        stages = [api.PlannedStage(stage="seeds", items=9), api.PlannedStage(stage="responses", generated_tokens=700)]
        return api.PlanRunResponse(config=request.config, stages=stages)

    async def ListRuns(self, request: api.ListRunsRequest, context: Any) -> api.ListRunsResponse:
        return api.ListRunsResponse(runs=[api.RunStatus(id="r" * 32, state=SUCCEEDED, config=self._run())])

    def _run(self) -> pb.Run:
        return self.created[0].config.arms[1].run

    async def GetReport(self, request: api.GetReportRequest, context: Any) -> api.GetReportResponse:
        stages = [api.StageReport(stage="seeds", kept=9), api.StageReport(stage="responses", wall_seconds=30.0)]
        return api.GetReportResponse(stages=stages)

    async def CreateExperiment(
        self, request: api.CreateExperimentRequest, context: Any
    ) -> api.CreateExperimentResponse:
        self.created.append(request)
        return api.CreateExperimentResponse(experiment=self.status(RUNNING))

    async def WatchExperiment(
        self, request: api.WatchExperimentRequest, context: Any
    ) -> AsyncIterator[api.WatchExperimentResponse]:
        if self.paused:
            yield api.WatchExperimentResponse(experiment=self.status(PAUSED))
            return
        yield api.WatchExperimentResponse(experiment=self.status(RUNNING, "arm passes, seed 0: writing data"))
        self.watched.set()
        if not self.ends:
            await asyncio.Event().wait()
        yield api.WatchExperimentResponse(experiment=self.status(SUCCEEDED))

    async def PauseExperiment(self, request: api.PauseExperimentRequest, context: Any) -> api.PauseExperimentResponse:
        self.paused = True
        return api.PauseExperimentResponse(experiment=self.status(RUNNING))

    async def GetExperiment(self, request: api.GetExperimentRequest, context: Any) -> api.GetExperimentResponse:
        found = api.GetExperimentResponse(experiment=self.status(SUCCEEDED))
        measure = found.result.measures.add(benchmark="nanoeval", problems=5, problems_total=5)
        for arm, mean in (("base", 0.25), ("passes", 0.75)):
            measure.scores.add(arm=arm, seeds=[0], pass_at_1=[mean], mean=mean, rows=[0])
        found.result.decisions.add(outcome="supported", sentence="Supported: passes is better.")
        return found


class Inference(inference_rpc.InferenceServiceServicer):
    async def ListModels(self, request: inf.ListModelsRequest, context: Any) -> inf.ListModelsResponse:
        model = inf.Model(name="nano", revision="r1", source="/models/nano", engine="transformers")
        return inf.ListModelsResponse(models=[model])


@pytest.fixture
def carried_out(
    pipeline: api.Pipeline, serving: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[Coordinator, command._Work]]:
    """A function that returns a coordinator and a command that will find it."""

    def make(*, ends: bool = True, started: bool = False, plan: bool = False) -> tuple[Coordinator, command._Work]:
        coordinator = Coordinator(pipeline, ends=ends)  # type: ignore[abstract]  # what is not called is not there
        connected = serving(
            coordinator=lambda server: api_grpc.add_CoordinatorServiceServicer_to_server(coordinator, server),
            inference=lambda server: inference_rpc.add_InferenceServiceServicer_to_server(
                Inference(),  # type: ignore[abstract]
                server,
            ),
        )

        @contextlib.asynccontextmanager
        async def found(*_: object, **__: object) -> AsyncIterator[Any]:
            async with connected() as connection:
                connection.started = started
                yield connection

        monkeypatch.setattr(command, "connected", found)
        file = chosen(experiments.parse("mine.yaml", TEXT), Choices())
        folder = tmp_path / "out"
        return coordinator, command._Work(target(tmp_path), file, Options(), False, folder, plan)

    return make


async def test_it_forecasts_follows_and_writes_the_results(
    carried_out: Callable[..., tuple[Coordinator, command._Work]], capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator, work = carried_out()
    assert await command._run(work) == SUCCEEDED
    validated, created = coordinator.created
    assert (validated.validate_only, created.validate_only) == (True, False)
    assert validated.config == created.config
    assert created.config.arms[1].run.seeds.collection == "mine"
    told = capsys.readouterr()
    for line in (
        "2 arms for 1 seed: 1 run, 1 training, 4 evaluations; what exists is reused",
        "at most 700 new tokens for data",
        "measured: run rrrrrrrrrrrr of this model took 30 s for 9 seed functions",
        "experiment 0123456789ab: new",
        "[1/2] arm passes, seed 0: writing data",
    ):
        assert line in told.err
    assert "A100" not in told.err, "the embedded model needs no GPU"
    assert "Supported: passes is better." in told.out
    stem = command.file_stem("my comparison / 1")
    assert stem.startswith("my-comparison-1-")
    assert {path.name for path in work.folder.iterdir()} == {f"{stem}.{kind}" for kind in ("md", "svg", "json")}
    assert "Why." in (work.folder / f"{stem}.md").read_text()


def test_experiments_of_different_names_have_different_files() -> None:
    names = ["a-b", "a/b", "a b", "a//b", "-a-b", "a-b.", "ä", "ö", "..", "a" * 200, "/" * 200]
    found = [command.file_stem(name) for name in names]
    assert found[0] == "a-b"
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", stem) and len(stem) < 240 for stem in found)


async def test_a_plan_starts_nothing(carried_out: Callable[..., tuple[Coordinator, command._Work]]) -> None:
    coordinator, work = carried_out(plan=True)
    assert await command._run(work) == SUCCEEDED
    assert [request.validate_only for request in coordinator.created] == [True]
    assert not work.folder.exists()


@pytest.mark.parametrize("started", [True, False])
async def test_an_interruption_pauses_what_the_command_started_and_nothing_else(
    carried_out: Callable[..., tuple[Coordinator, command._Work]], started: bool
) -> None:
    coordinator, work = carried_out(ends=False, started=started)
    running = asyncio.create_task(command._run(work))
    await coordinator.watched.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert coordinator.paused is started
    said = "paused; finished work is kept" if started else "codealign experiment pause 0123456789ab"
    assert said in work.interrupted()


def test_a_source_may_contain_an_equals_sign() -> None:
    given = ["teacher=http://one/v1?a=b", "/models/rank=8"]
    assert command._models(given) == {"teacher": "http://one/v1?a=b", OWN: "/models/rank=8"}
    assert command._models(["=org/base"]) == {OWN: "org/base"}
    with pytest.raises(Failure, match="the model to train is given twice"):
        command._models(["org/a", "http://b?c=d"])


@pytest.mark.parametrize(
    ("seeds", "said"),
    [("0,x", "must be whole numbers"), ("1,01", "a seed twice"), ("0,9223372036854775808", "too large")],
)
def test_seeds_that_cannot_be_are_refused(seeds: str, said: str) -> None:
    with pytest.raises(Failure, match=f"--seeds: .*{said}"):
        command._numbers(seeds)


def test_a_folder_for_results_that_is_a_file_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for given in (tmp_path / "file", tmp_path / "file" / "in"):
        with pytest.raises(Failure, match=r"--out: .*/file is a file; name a folder"):
            command._check_folder(given)
    command._check_folder(tmp_path / "new" / "folder")
