"""What follows the data: when it is skipped, and when it is refused."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator

import grpc
import pytest
from rich.console import Console

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as api_grpc
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.loop import LoopChoices, check_benchmarks
from codealign.cli.loop_steps import has_settled, outcome, steps_line
from codealign.cli.run_config import loop_choices
from codealign.common.clients import ClientTls
from codealign.common.errors import CodeAlignError, FailedPrecondition, NotFound
from codealign.common.interceptors import ServerInterceptor

ABSENT = NotFound("humaneval+: no local file; and the hub is unreachable")
DAMAGED = FailedPrecondition("benchmark file a.jsonl: is empty; download it again")


class Coordinator(api_grpc.CoordinatorServiceServicer):
    def __init__(self, error: CodeAlignError | None) -> None:
        self.error = error

    async def Evaluate(self, request: api.EvaluateRequest, context: object) -> AsyncIterator[api.EvaluateResponse]:
        assert request.validate_only
        for benchmark in request.settings.benchmarks:
            if self.error is not None:
                raise self.error
            yield api.EvaluateResponse(benchmark=benchmark, problems_total=10)


@contextlib.asynccontextmanager
async def connected(error: CodeAlignError | None) -> AsyncIterator[Connection]:
    server = grpc.aio.server(interceptors=[ServerInterceptor(60.0)])
    coordinator = Coordinator(error)  # type: ignore[abstract]  # what is not called is not there
    api_grpc.add_CoordinatorServiceServicer_to_server(coordinator, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = Connection({"coordinator": f"127.0.0.1:{port}"}, ClientTls(), started=False)
    try:
        yield connection
    finally:
        await connection.clients.close()
        await server.stop(0)


def chosen(*benchmarks: str, files: bool = False, until: str = "evaluation") -> LoopChoices:
    return loop_choices("default", until, training.TrainingSpec(), benchmarks, None, files=files)


async def checked(choices: LoopChoices, error: CodeAlignError | None) -> tuple[LoopChoices, str]:
    file = io.StringIO()
    async with connected(error) as connection:
        return await check_benchmarks(connection, choices, Console(file=file, soft_wrap=True)), file.getvalue()


async def test_what_nobody_named_and_is_not_to_be_had_is_left_out_with_a_note() -> None:
    choices = chosen()
    found, told = await checked(choices, ABSENT)
    assert found.trains
    assert not found.evaluates
    assert found.training == choices.training
    assert told.count("\n") == 1
    assert "skipping the evaluation, the run ends after training: humaneval+: no local file" in told
    assert "BENCHMARKS=DIRECTORY" in told


@pytest.mark.parametrize(
    ("choices", "error"),
    [
        pytest.param(chosen("humaneval+"), ABSENT, id="named"),
        pytest.param(chosen(files=True), ABSENT, id="files given"),
        pytest.param(chosen(), DAMAGED, id="damaged"),
    ],
)
async def test_what_was_named_or_is_damaged_is_refused(choices: LoopChoices, error: CodeAlignError) -> None:
    with pytest.raises(Failure) as caught:
        await checked(choices, error)
    assert "coordinator service at 127.0.0.1:" in caught.value.message
    assert caught.value.message.endswith(error.message)


async def test_a_coordinator_that_is_away_is_no_reason_to_leave_anything_out() -> None:
    connection = Connection({"coordinator": "127.0.0.1:1"}, ClientTls(), started=False)
    with contextlib.closing(io.StringIO()) as file, pytest.raises(Failure, match="cannot reach the service"):
        await check_benchmarks(connection, chosen(), Console(file=file))
    await connection.clients.close()


async def test_choices_whose_benchmarks_are_there_or_not_needed_stay_as_they_are() -> None:
    assert await checked(chosen(), None) == (chosen(), "")
    assert await checked(chosen(until="training"), ABSENT) == (chosen(until="training"), "")


def test_a_loop_leaves_model_dataset_and_style_to_the_coordinator() -> None:
    choices = loop_choices(
        "default", "evaluation", training.TrainingSpec(epochs=2.0, lora=training.Lora(rank=8)), ("humaneval",), 3
    )
    loop = choices.loop(one_model=True)
    assert loop is not None
    assert (loop.training.model, loop.training.dataset, loop.training.epochs, loop.training.lora.rank) == ("", "", 2, 8)
    assert [(list(each.benchmarks), each.limit, each.prompt_style) for each in loop.evaluations] == [
        (["humaneval"], 3, "")
    ]
    assert loop.one_model


def test_what_follows_the_data_is_as_far_as_a_person_goes() -> None:
    assert chosen(until="data").loop(one_model=False) is None
    training = chosen(until="training").loop(one_model=False)
    assert training is not None
    assert not training.evaluations


RUNNING, PAUSED, DONE, FAILED = (
    pb.RUN_STATE_RUNNING,
    pb.RUN_STATE_PAUSED,
    pb.RUN_STATE_SUCCEEDED,
    pb.RUN_STATE_FAILED,
)


@pytest.mark.parametrize(
    ("run", "loop", "settled", "outcome_"),
    [
        (RUNNING, None, False, RUNNING),
        (DONE, None, True, DONE),
        (RUNNING, RUNNING, False, RUNNING),
        (DONE, RUNNING, False, RUNNING),
        (DONE, DONE, True, DONE),
        (DONE, FAILED, True, FAILED),
        (DONE, PAUSED, True, PAUSED),
        (FAILED, RUNNING, True, FAILED),
        (PAUSED, RUNNING, True, PAUSED),
    ],
)
def test_a_run_is_watched_until_it_and_its_loop_have_settled(
    run: pb.RunState.ValueType,
    loop: pb.RunState.ValueType | None,
    settled: bool,
    outcome_: pb.RunState.ValueType,
) -> None:
    status = api.RunStatus(state=run)
    if loop is not None:
        status.loop.state = loop
    assert (has_settled(status), outcome(status)) == (settled, outcome_)


def test_the_step_that_is_being_worked_on_is_told_in_a_line() -> None:
    loop = api.LoopStatus(state=RUNNING)
    loop.steps.add(name="evaluate the base model", state=DONE, done=9, total=9)
    loop.steps.add(name="train", state=RUNNING, done=1200, total=4000, message="loss 1.2")
    loop.steps.add(name="evaluate the tuned model")
    assert steps_line(loop) == "train 1,200/4,000 loss 1.2"
    assert steps_line(api.LoopStatus(state=FAILED, message="no \x1b[31mrows")) == "failed: no \ufffd[31mrows"
