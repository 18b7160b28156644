"""`codealign pipelines`, `codealign rejudge` and the requests of `codealign run`, against a fake coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as rpc
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import dataset_pb2_grpc as ds_rpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.commands import pipelines, rejudge, run
from codealign.cli.main import app
from codealign.cli.stack import DATA_SERVICES, UNWRITTEN_SERVICES
from codealign.cli.terminal import out
from codealign.common.errors import FailedPrecondition, InvalidArgument

NEW, OLD = "cd" * 16, "ab" * 16


class Coordinator(rpc.CoordinatorServiceServicer):
    """A coordinator that knows one pipeline and one run, and records its requests."""

    def __init__(self, pipeline: api.Pipeline) -> None:
        self.pipeline = pipeline
        self.rejudged: list[api.RejudgeRunRequest] = []
        self.created: list[api.CreateRunRequest] = []
        self.refusal: FailedPrecondition | None = None
        self.existed = False
        self.rejudges = OLD
        self.wrong: InvalidArgument | None = None

    async def ListPipelines(self, request: api.ListPipelinesRequest, context: object) -> api.ListPipelinesResponse:
        return api.ListPipelinesResponse(pipelines=[self.pipeline])

    async def GetPipeline(self, request: api.GetPipelineRequest, context: object) -> api.GetPipelineResponse:
        if request.name not in ("", self.pipeline.name):
            raise InvalidArgument("name", f"unknown pipeline {request.name!r}; valid: {self.pipeline.name}")
        return api.GetPipelineResponse(pipeline=self.pipeline)

    async def RejudgeRun(self, request: api.RejudgeRunRequest, context: object) -> api.RejudgeRunResponse:
        if self.refusal is not None:
            raise self.refusal
        self.rejudged.append(request)
        return api.RejudgeRunResponse(run=self._status(), existed=self.existed)

    async def CreateRun(self, request: api.CreateRunRequest, context: object) -> api.CreateRunResponse:
        if self.wrong is not None:
            raise self.wrong
        self.created.append(request)
        return api.CreateRunResponse(run=self._status())

    async def WatchRun(self, request: api.WatchRunRequest, context: object) -> AsyncIterator[api.WatchRunResponse]:
        yield api.WatchRunResponse(run=self._status())

    async def GetRun(self, request: api.GetRunRequest, context: object) -> api.GetRunResponse:
        return api.GetRunResponse(run=self._status())

    async def GetReport(self, request: api.GetReportRequest, context: object) -> api.GetReportResponse:
        return api.GetReportResponse(run=self._status(), pipeline=self.pipeline, rows=2)

    def _status(self) -> api.RunStatus:
        return api.RunStatus(
            id=NEW, config=pb.Run(pipeline=self.pipeline.name, rejudges=self.rejudges), state=pb.RUN_STATE_SUCCEEDED
        )


class Dataset(ds_rpc.DatasetServiceServicer):
    async def Scan(self, request: ds.ScanRequest, context: object) -> ds.ScanResponse:
        return ds.ScanResponse()


@pytest.fixture
def coordinator(pipeline: api.Pipeline, monkeypatch: pytest.MonkeyPatch, serving: Callable[..., Any]) -> Coordinator:
    """A coordinator that every command connects to, whatever its home directory."""
    servicer = Coordinator(pipeline)  # type: ignore[abstract]  # what is not called is not there
    connected = serving(
        coordinator=lambda server: rpc.add_CoordinatorServiceServicer_to_server(servicer, server),
        dataset=lambda server: ds_rpc.add_DatasetServiceServicer_to_server(Dataset(), server),  # type: ignore[abstract]
    )
    for command in (pipelines, rejudge):
        monkeypatch.setattr(command, "services", connected)
    monkeypatch.setattr(run, "_connected", connected)
    return servicer


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEALIGN_HOME", str(tmp_path / "home"))


def codealign(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("width", [20, 80, 200])
def test_the_pipelines_are_listed_with_their_stages_however_narrow_the_terminal(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(out, "width", width)
    result = codealign("pipelines")
    assert result.exit_code == 0, result.output
    assert f"selfcodealign: {coordinator.pipeline.description}\n" in result.output
    assert "seeds → concepts → instructions → responses → execution → selection" in result.output


def test_a_pipeline_is_described_with_stages_defaults_and_reasons(coordinator: Coordinator) -> None:
    coordinator.pipeline.stages[0].description = "what \x1b[2J steers"
    result = codealign("pipelines", "selfcodealign")
    assert result.exit_code == 0, result.output
    for part in (
        "few-shot sets: selfcodealign, nano",
        "concepts: Title of concepts",
        "written by a model, for each item of seeds, version 1",
        "defaults: temperature 0.7, max_tokens 128, few_shots 8",
        "difficulty: drawn from easy, medium, hard; valid: easy, medium, hard",
        "seed.no-return returns no value",
        "dedup.near-code code nearly the same as another's",
    ):
        assert part in " ".join(result.output.split()), part
    assert "\x1b" not in result.output


def test_an_unknown_pipeline_is_named_with_those_that_there_are(coordinator: Coordinator) -> None:
    for arguments in (["pipelines", "osss"], ["run", "--collection", "c", "--pipeline", "osss", *EXPLICIT]):
        result = codealign(*arguments)
        assert result.exit_code == 1
        assert "unknown pipeline 'osss'; valid: selfcodealign" in result.output
    assert coordinator.created == []


def test_an_unknown_pipeline_is_named_by_its_option_before_any_seed_is_read(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("seeds were read")

    monkeypatch.setattr(run, "read_seeds", read)
    result = codealign("run", "--seeds", str(tmp_path), "--pipeline", "osss", *EXPLICIT)
    assert result.exit_code == 1
    told = " ".join(result.output.split())
    assert "--pipeline: unknown pipeline 'osss'; valid: selfcodealign" in told
    assert "name:" not in told
    file = tmp_path / "run.yaml"
    file.write_text("pipeline: osss\n")
    result = codealign("run", "--seeds", str(tmp_path), "--config", str(file), *EXPLICIT)
    assert "--config: pipeline: unknown pipeline 'osss'" in " ".join(result.output.split())


EXPLICIT = ["--coordinator", "127.0.0.1:1", "--dataset", "127.0.0.1:1"]


def test_rejudge_asks_for_what_was_given_follows_and_says_how_to_compare(coordinator: Coordinator) -> None:
    result = codealign("rejudge", "first", "--name", "again", "--wall-seconds", "2.5", "--memory", "512", *EXPLICIT)
    assert result.exit_code == 0, result.output
    (request,) = coordinator.rejudged
    assert request == api.RejudgeRunRequest(
        run="first",
        name="again",
        execution=pb.ExecutionSettings(limits=sb.Limits(wall_seconds=2.5, memory_bytes=512 * 2**20)),
    )
    assert f"run {NEW[:12]}: new (rejudges {OLD[:12]})" in result.output
    assert result.output.rstrip().endswith(f"codealign data diff {OLD[:12]} {NEW[:12]}")


def test_rejudge_without_limits_keeps_the_runs_and_says_when_nothing_changed(coordinator: Coordinator) -> None:
    coordinator.existed = True
    result = codealign("rejudge", "first", *EXPLICIT)
    assert not coordinator.rejudged[0].HasField("execution")
    assert "already exists; nothing has changed since" in result.output


@pytest.mark.parametrize("written", [True, False])
def test_rejudge_starts_no_inference_service_for_a_run_in_which_no_model_writes(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    connected: list[tuple[str, ...]] = []
    services: Callable[..., Any] = vars(rejudge)["services"]

    def noted(where: object, *needs: str, **options: object) -> Any:
        connected.append(needs)
        return services(where, *needs, **options)

    monkeypatch.setattr(rejudge, "services", noted)
    if not written:
        for stage in [stage for stage in coordinator.pipeline.stages if stage.role == api.STAGE_ROLE_WRITING]:
            coordinator.pipeline.stages.remove(stage)
    assert codealign("rejudge", "first").exit_code == 0
    assert connected == [("coordinator", "dataset"), DATA_SERVICES if written else UNWRITTEN_SERVICES]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--wall-seconds", "-1"], 2, "--wall-seconds"),
        (["--runs", "11"], 2, "--runs"),
        (["--memory", "x"], 2, "--memory"),
    ],
)
def test_what_no_limit_can_be_is_refused(
    coordinator: Coordinator, arguments: list[str], code: int, message: str
) -> None:
    result = codealign("rejudge", "first", *arguments, *EXPLICIT)
    assert result.exit_code == code
    assert message in result.output
    assert coordinator.rejudged == []


def test_a_run_that_cannot_be_rejudged_is_told_why(coordinator: Coordinator) -> None:
    coordinator.refusal = FailedPrecondition("run abababababab has not finished")
    result = codealign("rejudge", "first", *EXPLICIT)
    assert result.exit_code == 1
    assert "run abababababab has not finished" in result.output


def test_run_asks_for_pipeline_strategy_and_what_its_file_says(coordinator: Coordinator, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: org/base\nseeds: {collection: mine}\nstages: {responses: {attempts: 5}}\n")
    result = codealign(
        *("run", "--config", str(file), "--pipeline", "selfcodealign", "--strategy", "everything"),
        *("--max-tokens", "99", "--difficulty", "easy", *EXPLICIT),
    )
    assert result.exit_code == 0, result.output
    config = coordinator.created[0].config
    assert (config.pipeline, config.selection.strategy) == ("selfcodealign", "everything")
    assert (config.model.model, config.seeds.collection) == ("org/base", "mine")
    stages: dict[str, Any] = {stage.stage: stage for stage in config.stages}
    assert (stages["responses"].attempts, stages["responses"].max_tokens) == (5, 99)
    assert [draw.name for draw in stages["instructions"].properties] == ["difficulty"]


def test_a_model_for_a_run_in_which_no_model_writes_needs_a_training(coordinator: Coordinator) -> None:
    for stage in [stage for stage in coordinator.pipeline.stages if stage.role == api.STAGE_ROLE_WRITING]:
        coordinator.pipeline.stages.remove(stage)
    command = (
        "run",
        "--collection",
        "theirs",
        "--pipeline",
        coordinator.pipeline.name,
        "--model",
        "org/base",
        *EXPLICIT,
    )
    refused = codealign(*command)
    assert refused.exit_code == 1
    assert "--model: has no effect, since no model writes in pipeline selfcodealign" in " ".join(refused.output.split())
    assert codealign(*command, "--until", "training").exit_code == 0
    (request,) = coordinator.created
    assert (request.config.model.model, request.HasField("loop")) == ("org/base", True)


def test_a_file_for_stages_that_the_pipeline_does_not_have_is_refused_with_lines(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seeds: {collection: mine}\nstages:\n  respones: {attempts: 5}\n")
    result = codealign("run", "--config", str(file), *EXPLICIT)
    assert result.exit_code == 1
    assert "line 3: stages.respones: unknown; did you mean responses?" in " ".join(result.output.split())
    assert not coordinator.created


def test_where_nothing_has_changed_since_no_comparison_of_a_run_with_itself_is_named(coordinator: Coordinator) -> None:
    assert "to compare: codealign data diff" in codealign("rejudge", OLD, *EXPLICIT).output
    coordinator.existed, coordinator.rejudges = True, ""
    assert "data diff" not in codealign("rejudge", NEW, *EXPLICIT).output


def test_what_the_coordinator_refuses_is_told_by_stage_and_line(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.wrong = InvalidArgument("config.stages[0].attempts", "must be from 1 to 256")
    file = tmp_path / "run.yaml"
    file.write_text("model: org/base\nstages:\n  responses: {attempts: 500}\n")
    result = codealign("run", "--collection", "c", "--config", str(file), *EXPLICIT)
    assert result.exit_code == 1
    told = "".join(result.output.split())
    assert "stages.responses.attempts:mustbefrom1to256" in told
    assert "run.yaml,line3)" in told
