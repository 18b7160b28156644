"""The training service over gRPC, with a real dataset service and real training processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.dataset.v1 import records_pb2 as records
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.api.inference.v1 import inference_pb2
from codealign.api.inference.v1 import inference_pb2_grpc as inference_rpc
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.api.training.v1 import training_pb2 as api
from codealign.api.training.v1.training_pb2_grpc import TrainingServiceStub
from codealign.common.errors import violated_fields
from codealign.common.health import Readiness
from codealign.common.interceptors import ServerInterceptor
from codealign.common.model_identity import revision
from codealign.common.records import complete
from codealign.trainer.main import build
from codealign.trainer.process import TrainingProcess
from codealign.trainer.publishing import publish
from codealign.trainer.settings import TrainerSettings
from trainer.tests.tiny import rows

if TYPE_CHECKING:
    from codealign.api.training.v1.training_pb2_grpc import TrainingServiceAsyncStub

STATUS = grpc.StatusCode
PENDING, RUNNING = api.TRAINING_STATE_PENDING, api.TRAINING_STATE_RUNNING
SUCCEEDED, FAILED = api.TRAINING_STATE_SUCCEEDED, api.TRAINING_STATE_FAILED
CANCELLED = api.TRAINING_STATE_CANCELLED

Serve = Callable[..., AbstractAsyncContextManager[Any]]


def launch(module: str, endpoint: Path, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a service as a process; return it and its address."""
    prefix = f"CODEALIGN_{module.split('.')[1].upper()}_"
    variables = {prefix + name.upper(): value for name, value in environment.items()}
    variables[prefix + "ENDPOINT_FILE"] = str(endpoint)
    with endpoint.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", module], env={**os.environ, **variables}, stderr=log)
    deadline = time.monotonic() + 60
    while not endpoint.exists():
        assert process.poll() is None, endpoint.with_suffix(".log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, f"127.0.0.1:{json.loads(endpoint.read_text())['port']}"


@pytest.fixture(scope="module")
def dataset_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dataset")
    process, address = launch("codealign.dataset.main", folder / "endpoint.json", data_dir=str(folder / "data"))
    yield address
    process.terminate()
    process.wait(30)


def example(number: int, row: dict[str, str]) -> list[records.Record]:
    """Return a valid row for the store: with its seed, its response and a verdict of gVisor."""
    seed = complete(records.Record(kind=records.KIND_SEED, seed=records.Seed(code=f"def f(a): return {number}")))
    response = complete(
        records.Record(kind=records.KIND_RESPONSE, parents=[seed.id], response=records.Response(answer=row["response"]))
    )
    passed = sandbox_pb2.Result(verdict=sandbox_pb2.VERDICT_PASSED, isolation=sandbox_pb2.ISOLATION_GVISOR)
    verdict = complete(
        records.Record(kind=records.KIND_VERDICT, parents=[response.id], verdict=records.VerdictBody(result=passed))
    )
    body = records.Example(
        instruction=row["instruction"],
        response=row["response"],
        tests=row["tests"],
        category="function",
        difficulty="easy",
        lineage=[
            records.LineageStep(stage="seeds", record_id=seed.id),
            records.LineageStep(stage="responses", record_id=response.id),
        ],
        verdict_id=verdict.id,
    )
    kept = complete(records.Record(kind=records.KIND_EXAMPLE, parents=[response.id, verdict.id], example=body))
    return [seed, response, verdict, kept]


@pytest.fixture(scope="module")
def version(dataset_service: str) -> str:
    """Return a published version of 22 rows."""
    with grpc.insecure_channel(dataset_service) as channel:
        store = DatasetServiceStub(channel)
        chain = [record for number, row in enumerate(rows(22)) for record in example(number, row)]
        store.Append(dataset_pb2.AppendRequest(records=chain, collection="rows"))
        return str(store.PublishVersion(dataset_pb2.PublishVersionRequest(collection="rows")).version.name)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """The service in this process, over real gRPC."""

    @contextlib.asynccontextmanager
    async def served(**changes: Any) -> AsyncIterator[TrainingServiceAsyncStub]:
        settings = TrainerSettings(
            **{
                "data_dir": tmp_path / "data",
                "cache_dir": tmp_path / "cache",
                "device": "cpu",
                "threads": 1,
                "follow_seconds": 0.05,
                **changes,
            }
        )
        server = grpc.aio.server(interceptors=[ServerInterceptor(600)])
        async with build(settings, Readiness()) as registrations:
            for registration in registrations:
                registration.add(registration.servicer, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield TrainingServiceStub(channel)
            await server.stop(0)

    return served


@pytest.fixture
def spec(model_folder: Path, dataset_folder: Path) -> api.TrainingSpec:
    return api.TrainingSpec(
        model=str(model_folder),
        dataset=str(dataset_folder),
        learning_rate=1e-3,
        batch_size=4,
        epochs=2,
        max_length=128,
        checkpoint_steps=3,
    )


def changed(spec: api.TrainingSpec, **fields: Any) -> api.TrainingSpec:
    copy = api.TrainingSpec()
    copy.CopyFrom(spec)
    copy.MergeFrom(api.TrainingSpec(**fields))
    return copy


async def submit(stub: TrainingServiceAsyncStub, spec: api.TrainingSpec) -> api.Training:
    return (await stub.SubmitTraining(api.SubmitTrainingRequest(spec=spec), timeout=60)).training


async def until(
    stub: TrainingServiceAsyncStub, training_id: str, condition: Callable[[api.Training], bool]
) -> api.Training:
    """Watch a training until the condition holds."""
    async for answer in stub.WatchTraining(api.WatchTrainingRequest(id=training_id), timeout=180):
        if condition(answer.training):
            return answer.training
    pytest.fail(f"it ended before that: {answer.training.message}")


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def programs(parent: int = 0) -> list[int]:
    """Return the process ids of the training programs that a process has started; 0: this process."""
    parent = parent or os.getpid()
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "codealign.trainer.sft" in line]


def processes_of(job: Path) -> list[int]:
    """Return the ids of the processes with this job file among their arguments."""
    listed = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if str(job) in line]


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(listed.strip()) and not listed.startswith("Z")


@pytest.mark.slow
async def test_a_version_is_trained_on_and_the_model_entered_into_the_store(
    serve: Serve, spec: api.TrainingSpec, dataset_service: str, version: str, tmp_path: Path
) -> None:
    wanted = changed(spec, dataset=version, name="first", max_length=120)
    async with serve(dataset_address=dataset_service) as stub:
        answer = await stub.SubmitTraining(api.SubmitTrainingRequest(spec=wanted), timeout=60)
        assert not answer.existed
        training = answer.training
        assert training.spec.optimizer == "adafactor"
        assert training.spec.warmup_ratio == pytest.approx(0.05)
        assert training.spec.dtype == "float32"
        assert training.rows == 22
        assert 0 < training.estimate.memory_bytes < training.estimate.memory_available_bytes
        assert 0 < training.estimate.disk_bytes < training.estimate.disk_available_bytes
        seen = [
            answer.training
            async for answer in stub.WatchTraining(api.WatchTrainingRequest(id=training.id), timeout=180)
        ]
        assert [state.step for state in seen] == sorted(state.step for state in seen)
        assert any(state.state == RUNNING for state in seen)
        done = seen[-1]
        assert (done.state, done.step, done.total_steps) == (SUCCEEDED, 12, 12), done.message
        assert [point.step for point in done.losses] == list(range(1, 13))
        assert done.loss == done.losses[-1].loss < done.losses[0].loss
        assert 0 < done.truncated_rows <= done.rows <= 22
        assert done.trained_tokens > 0
        assert any("chat template" in note for note in done.notes)
        assert any("pad token" in note for note in done.notes)
        again = await stub.SubmitTraining(
            api.SubmitTrainingRequest(spec=changed(wanted, name="second", checkpoint_steps=5)), timeout=60
        )
        assert again.existed
        assert again.training == done
        other = await submit(stub, changed(wanted, seed=7))
        assert other.id != done.id
        await stub.CancelTraining(api.CancelTrainingRequest(id=other.id))
        listed = (await stub.ListTrainings(api.ListTrainingsRequest())).trainings
        assert [training.id for training in listed] == [other.id, done.id]

    with grpc.insecure_channel(dataset_service) as channel:
        store = DatasetServiceStub(channel)
        (record,) = store.Get(dataset_pb2.GetRequest(ids=[done.checkpoint_id])).records
        (config,) = store.Get(dataset_pb2.GetRequest(ids=[record.stage_config_id])).records
    result = Path(done.artifact_url.removeprefix("file://"))
    checkpoint = record.checkpoint
    assert (record.kind, list(record.parents)) == (records.KIND_CHECKPOINT, [])
    assert config.id == done.id
    assert config.stage_config.name == "training"
    settings = json.loads(config.stage_config.settings_json)
    assert (settings["dataset"], settings["base_revision"]) == (version, checkpoint.base_revision)
    assert checkpoint.artifact_url == result.as_uri()
    assert checkpoint.revision == revision(result, tmp_path / "other-cache")
    assert (checkpoint.base_model, checkpoint.dataset_version) == ("tiny", version)
    assert (checkpoint.steps, checkpoint.rows, checkpoint.setup) == (12, done.rows, "float32 on cpu, 1 worker")
    assert checkpoint.final_loss == done.loss
    assert list(checkpoint.losses) == list(done.losses)


@pytest.mark.slow
async def test_trainings_wait_for_each_other_die_are_cancelled_and_go_on(serve: Serve, spec: api.TrainingSpec) -> None:
    async with serve() as stub:
        first = await submit(stub, changed(spec, epochs=60, checkpoint_steps=10))
        second = await submit(stub, changed(spec, seed=1))
        assert (await stub.GetTraining(api.GetTrainingRequest(id=second.id))).training.state == PENDING
        ended = (await stub.CancelTraining(api.CancelTrainingRequest(id=second.id))).training
        assert (ended.state, ended.message) == (CANCELLED, "cancelled; there was no checkpoint yet")

        await until(stub, first.id, lambda training: training.checkpoint_step >= 20)
        (pid,) = programs()
        os.kill(pid, signal.SIGKILL)
        going_on = await until(stub, first.id, lambda training: any("restarted" in note for note in training.notes))
        assert "signal 9 (SIGKILL: often the kernel's out-of-memory killer)" in " ".join(going_on.notes)
        further = await until(stub, first.id, lambda training: training.step > going_on.step + 5)
        assert len(programs()) == 1
        stopped = (await stub.CancelTraining(api.CancelTrainingRequest(id=first.id))).training
        assert stopped.state == CANCELLED
        assert f"the checkpoint of step {stopped.checkpoint_step} is kept" in stopped.message
        assert stopped.checkpoint_step >= 20
        assert programs() == []

        answer = await stub.SubmitTraining(
            api.SubmitTrainingRequest(spec=changed(spec, epochs=60, checkpoint_steps=10)), timeout=60
        )
        assert answer.existed
        assert answer.training.checkpoint_step == stopped.checkpoint_step
        done = await until(stub, first.id, lambda training: training.state in (SUCCEEDED, FAILED))
        assert done.state == SUCCEEDED, done.message
        assert further.total_steps == done.step == 360
        assert [point.step for point in done.losses] == list(range(1, 361))
        assert "no Checkpoint record" in " ".join(done.notes)


@pytest.mark.slow
async def test_a_service_that_was_killed_goes_on_with_what_was_running(spec: api.TrainingSpec, tmp_path: Path) -> None:
    long = changed(spec, epochs=25, checkpoint_steps=10)

    def begin() -> tuple[subprocess.Popen[bytes], str]:
        return launch(
            "codealign.trainer.main",
            tmp_path / "endpoint.json",
            data_dir=str(tmp_path / "data"),
            cache_dir=str(tmp_path / "cache"),
            device="cpu",
            threads="1",
        )

    process, address = begin()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = TrainingServiceStub(channel)
        training = await submit(stub, long)
        before = await until(stub, training.id, lambda training: training.checkpoint_step >= 10)
        (program,) = programs(process.pid)
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20
    while alive(program):
        assert time.monotonic() < deadline, "the program outlived its service"
        await asyncio.sleep(0.05)
    (tmp_path / "endpoint.json").unlink()
    process, address = begin()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = TrainingServiceStub(channel)
            done = await until(stub, training.id, lambda training: training.state in (SUCCEEDED, FAILED))
            assert done.state == SUCCEEDED, done.message
            assert done.step == 150
            assert list(done.losses[: before.checkpoint_step]) == list(before.losses[: before.checkpoint_step])
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
async def test_a_training_that_cannot_go_on_says_why(serve: Serve, spec: api.TrainingSpec) -> None:
    async with serve(max_restarts=0) as stub:
        lora = api.Lora(target_modules=["nowhere"])
        wrong = await submit(stub, changed(spec, lora=lora))
        killed = await submit(stub, changed(spec, epochs=60))
        ended = await until(stub, wrong.id, lambda training: training.state == FAILED)
        assert "spec.lora.target_modules nowhere" in ended.message
        await until(stub, killed.id, lambda training: training.step > 3)
        os.kill(programs()[0], signal.SIGKILL)
        ended = await until(stub, killed.id, lambda training: training.state == FAILED)
        assert "killed by signal 9" in ended.message
        assert "submit again; training continues from the checkpoint of step" in ended.message


@pytest.mark.slow
async def test_what_is_trained_is_not_trained_again_if_its_record_was_not_stored(
    serve: Serve, spec: api.TrainingSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stored = publish
    monkeypatch.setattr("codealign.trainer.trainings.publish", lambda *_: asyncio.sleep(600))
    async with serve(dataset_address="127.0.0.1:1") as stub:
        training = await submit(stub, changed(spec, max_steps=2))
        await until(stub, training.id, lambda training: training.message.startswith("trained; storing"))
        assert (await stub.CancelTraining(api.CancelTrainingRequest(id=training.id))).training.state == CANCELLED
    monkeypatch.setattr("codealign.trainer.trainings.publish", stored)
    async with serve() as stub:
        await submit(stub, changed(spec, max_steps=2))
        done = await until(stub, training.id, lambda training: training.state in (SUCCEEDED, FAILED))
        assert (done.state, done.step) == (SUCCEEDED, 2), done.message
    progress = tmp_path / "data" / "trainings" / training.id / "progress.jsonl"
    assert progress.read_text().count('"started"') == 1


@pytest.mark.slow
async def test_a_killed_worker_is_told_from_a_program_that_fails(
    serve: Serve, spec: api.TrainingSpec, tmp_path: Path
) -> None:
    async with serve(max_restarts=0) as stub:
        training = await submit(stub, changed(spec, epochs=60, workers=2, sharding="ddp"))
        await until(stub, training.id, lambda training: training.checkpoint_step > 0)
        job = tmp_path / "data" / "trainings" / training.id / "job.json"
        os.kill(max(processes_of(job)), signal.SIGKILL)  # a worker: torchrun, their parent, is older
        ended = await until(stub, training.id, lambda training: training.state == FAILED)
        assert "a worker of the training program was killed by signal 9 (SIGKILL: often the kernel's" in ended.message
        assert "(1 times in all): free memory, set spec.gradient_checkpointing" in ended.message
        assert "training continues from the checkpoint of step" in ended.message


def test_the_last_words_are_the_programs_own(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    earlier = "Root Cause (first observed failure):\n[0]:\n  exitcode  : -9 (pid: 1)  (SIGKILL)\n"
    own = "a step\n[rank1]: Traceback\n[rank1]: RuntimeError: odd\n"
    report = (
        "W1130 21:05:10.852000 7277 torch/distributed/api.py:1028] Sending process 7280 closing signal SIGTERM\n"
        "E1130 21:05:10.885000 7277 torch/distributed/api.py:1002] failed (exitcode: {}) local_rank: 1 (pid: 2) of x\n"
        "Traceback (most recent call last):\nChildFailedError: \n=====\nRoot Cause (first observed failure):\n[0]:\n"
        "  time      : 2026-11-30_21:05:10\n  exitcode  : {} (pid: 2)\n  traceback : none\n=====\n"
    )
    for text, words, killed in (
        (own, "RuntimeError: odd", 0),
        (own + report.format(1, 1), "RuntimeError: odd", 0),
        (own + report.format(-9, -9), "RuntimeError: odd", 9),
        ("", "", 0),
    ):
        log.write_text(earlier + text)
        process = TrainingProcess(None, log, len(earlier))  # type: ignore[arg-type]  # only the log is read
        assert (process.last_words(), process.worker_signal()) == (words, killed)


async def test_every_field_that_is_wrong_is_named(serve: Serve, spec: api.TrainingSpec) -> None:
    wrong = api.TrainingSpec(
        name="a\nb",
        learning_rate=-1,
        warmup_ratio=1.5,
        schedule="steps",
        optimizer="sgd",
        batch_size=-1,
        epochs=float("nan"),
        max_steps=-1,
        max_length=-5,
        dtype="int8",
        lora=api.Lora(rank=-1, alpha=-1, dropout=1.0, target_modules=[""]),
        workers=-2,
        checkpoint_steps=-1,
        sharding="zero",
        rows=-1,
    )
    async with serve() as stub:
        error = await refused(stub.SubmitTraining(api.SubmitTrainingRequest(spec=wrong)))
        assert error.code() is STATUS.INVALID_ARGUMENT
        every = {field.name for field in api.TrainingSpec.DESCRIPTOR.fields}
        fine = {"model_revision", "gradient_checkpointing", "seed", "lora"}
        named = {path.removeprefix("spec.") for path in violated_fields(error)}
        lora = {"lora.rank", "lora.alpha", "lora.dropout", "lora.target_modules[0]"}
        assert named == (every - fine) | lora
        error = await refused(stub.SubmitTraining(api.SubmitTrainingRequest(spec=changed(spec, workers=3))))
        assert violated_fields(error) == ["spec.batch_size"]
        for call in (
            stub.GetTraining(api.GetTrainingRequest(id="x")),
            stub.CancelTraining(api.CancelTrainingRequest(id="x")),
        ):
            assert (await refused(call)).code() is STATUS.NOT_FOUND


async def test_sources_that_are_not_there_or_cannot_be_used_are_refused(
    serve: Serve, spec: api.TrainingSpec, dataset_service: str, model_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"prompt": ["a"]}), other / "rows.parquet")
    damaged = shutil.copytree(model_folder, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    cases: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
        ({"model": "/no/such/folder"}, STATUS.NOT_FOUND, "/no/such/folder: the folder does not exist"),
        ({"model": "file:///no/such"}, STATUS.NOT_FOUND, "the folder does not exist"),
        ({"model": str(other)}, STATUS.INVALID_ARGUMENT, "is not a model folder: config.json is missing"),
        ({"model": str(damaged)}, STATUS.FAILED_PRECONDITION, "is damaged"),
        ({"model_revision": "f" * 64}, STATUS.FAILED_PRECONDITION, "is revision"),
        ({"dataset": "v-0123456789abcdef"}, STATUS.NOT_FOUND, "v-0123456789abcdef"),
        ({"dataset": "rows"}, STATUS.INVALID_ARGUMENT, "a published version's name"),
        ({"rows": 23}, STATUS.INVALID_ARGUMENT, "spec.rows: is 23; the dataset has only 22 rows"),
        ({"dataset": "/no/rows"}, STATUS.NOT_FOUND, "the folder or file does not exist"),
        (
            {"dataset": str(other)},
            STATUS.INVALID_ARGUMENT,
            "lacks the columns instruction and response (it has prompt)",
        ),
        ({"dataset": f"file://{tmp_path}/damaged"}, STATUS.INVALID_ARGUMENT, "contains no *.parquet file"),
    ]
    async with serve(dataset_address=dataset_service) as stub:
        for fields, code, message in cases:
            error = await refused(stub.SubmitTraining(api.SubmitTrainingRequest(spec=changed(spec, **fields))))
            assert (error.code(), message in str(error.details())) == (code, True), error.details()
        assert not (await stub.ListTrainings(api.ListTrainingsRequest())).trainings
    versioned = changed(spec, dataset="v-0123456789abcdef")
    async with serve() as stub:
        error = await refused(stub.SubmitTraining(api.SubmitTrainingRequest(spec=versioned)))
        assert error.code() is STATUS.FAILED_PRECONDITION
        assert "CODEALIGN_TRAINER_DATASET_ADDRESS" in str(error.details())
    async with serve(dataset_address="127.0.0.1:1", data_dir=tmp_path / "away") as stub:
        call = stub.SubmitTraining(api.SubmitTrainingRequest(spec=versioned), timeout=30)
        assert (await refused(call)).code() is STATUS.UNAVAILABLE


class Inference(inference_rpc.InferenceServiceServicer):
    """An inference service with one model, which frees its memory or keeps it."""

    def __init__(self, size: int, *, fixed: bool) -> None:
        adapter = inference_pb2.Model(name="adapter", size_bytes=1, device="cpu", base="big")
        self.models = [inference_pb2.Model(name="big", size_bytes=size, device="cpu"), adapter]
        self._fixed = fixed

    async def ListModels(self, request: Any, context: Any) -> inference_pb2.ListModelsResponse:
        return inference_pb2.ListModelsResponse(models=self.models)

    async def UnloadModel(self, request: Any, context: Any) -> inference_pb2.UnloadModelResponse:
        if self._fixed:
            await context.abort(STATUS.UNIMPLEMENTED, "this server serves one fixed model")
        assert request.may_sleep, "the model is loaded again after the training"
        if not self.models:
            await context.abort(STATUS.NOT_FOUND, "it went with its base")
        self.models.clear()
        return inference_pb2.UnloadModelResponse()


async def test_what_does_not_fit_is_refused_with_numbers_or_room_is_made(
    serve: Serve, spec: api.TrainingSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free, held = 10**8, 3 * 10**9
    services: list[Inference] = []
    monkeypatch.setattr(
        "codealign.trainer.capacity.available_memory",
        lambda: free + (held if services and not services[-1].models else 0),
    )
    async with serve() as stub:
        error = await refused(stub.SubmitTraining(api.SubmitTrainingRequest(spec=spec)))
        assert error.code() is STATUS.FAILED_PRECONDITION
        text = str(error.details())
        assert "GB of memory, but only 0.10 GB are free" in text
        assert "spec.gradient_checkpointing or spec.lora" in text
        assert not (await stub.ListTrainings(api.ListTrainingsRequest())).trainings
    for size, fixed, expected in (
        (10**8, False, "the inference service's models use 0.10 GB"),
        (held, True, "big stays loaded: this server serves one fixed model"),
        (held, False, ""),
    ):
        services.append(Inference(size, fixed=fixed))  # type: ignore[abstract]  # what is not called is not there
        server = grpc.aio.server()
        inference_rpc.add_InferenceServiceServicer_to_server(services[-1], server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with serve(inference_address=f"127.0.0.1:{port}", data_dir=tmp_path / f"{size}{fixed}") as stub:
            call = stub.SubmitTraining(api.SubmitTrainingRequest(spec=spec))
            if expected:
                assert expected in str((await refused(call)).details())
            else:
                training = (await call).training
                assert "model big was unloaded from the inference service" in training.notes[0]
                await stub.CancelTraining(api.CancelTrainingRequest(id=training.id))
        await server.stop(0)


async def test_a_disk_that_is_too_small_is_refused_with_numbers(
    serve: Serve, spec: api.TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codealign.trainer.machine.free_disk", lambda folder: 10**6)
    async with serve() as stub:
        error = await refused(stub.SubmitTraining(api.SubmitTrainingRequest(spec=spec)))
        assert error.code() is STATUS.FAILED_PRECONDITION
        assert "of disk in" in str(error.details())
        assert "0.00 GB are free" in str(error.details())


def test_the_service_itself_needs_no_torch(tmp_path: Path) -> None:
    for module in ("torch", "transformers", "trl"):
        (tmp_path / f"{module}.py").write_text("raise ModuleNotFoundError(name=__name__)")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-c", "import codealign.trainer.main"], check=True, env={**os.environ, "PYTHONPATH": path}
    )
