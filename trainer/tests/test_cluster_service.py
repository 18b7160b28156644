"""The training service of a cluster over gRPC: it creates FineTuneJobs and reports their state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from codealign.api.training.v1 import training_pb2 as api
from codealign.api.training.v1.training_pb2_grpc import TrainingServiceStub, add_TrainingServiceServicer_to_server
from codealign.common.clients import Addresses, Clients
from codealign.common.errors import ConfigurationError
from codealign.common.health import Readiness
from codealign.common.interceptors import ServerInterceptor
from codealign.common.settings import load
from codealign.trainer.cluster.resource import PLURAL
from codealign.trainer.cluster.trainings import ClusterTrainings
from codealign.trainer.servicer import TrainingServicer
from codealign.trainer.settings import TrainerSettings
from trainer.tests.test_reconcile import BAD, GOOD, World


class Service:
    """The service together with the operator of the same namespace and volume."""

    def __init__(self, stub: Any, world: World, readiness: Readiness) -> None:
        self.stub, self.world, self.readiness = stub, world, readiness

    async def submit(self, spec: api.TrainingSpec) -> api.SubmitTrainingResponse:
        answer = await self.stub.SubmitTraining(api.SubmitTrainingRequest(spec=spec), timeout=60)
        return cast(api.SubmitTrainingResponse, answer)

    async def get(self, training_id: str) -> api.Training:
        answer = await self.stub.GetTraining(api.GetTrainingRequest(id=training_id), timeout=60)
        return cast(api.Training, answer.training)


@pytest.fixture(params=["volume", "url"])
async def service(
    request: pytest.FixtureRequest, tmp_path: Path, model_folder: Path, dataset_folder: Path
) -> AsyncIterator[Service]:
    url = request.param == "url"
    world = World(tmp_path, {"model": str(model_folder), "dataset": str(dataset_folder)}, url=url)
    settings = TrainerSettings(
        backend="kubernetes",
        namespace="lab",
        device="cpu",
        data_dir=tmp_path / "service" if url else world.settings.data_dir,
        artifacts_url=world.settings.artifacts_url,
        cache_dir=world.settings.cache_dir,
    )
    readiness = Readiness()
    server = grpc.aio.server(interceptors=[ServerInterceptor(600)])
    async with Clients(Addresses()) as clients:
        trainings = ClusterTrainings(world.cluster, settings, clients, readiness)
        add_TrainingServiceServicer_to_server(TrainingServicer(trainings), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Service(TrainingServiceStub(channel), world, readiness)
        await server.stop(0)


@pytest.fixture
def spec(model_folder: Path, dataset_folder: Path) -> api.TrainingSpec:
    return api.TrainingSpec(model=str(model_folder), dataset=str(dataset_folder), batch_size=4, workers=2, seed=3)


async def test_a_submission_is_a_fine_tune_job_and_the_second_one_is_the_same(
    service: Service, spec: api.TrainingSpec
) -> None:
    first = await service.submit(spec)
    second = await service.submit(spec)
    assert (first.existed, second.existed) == (False, True)
    assert first.training.id == second.training.id
    (made,) = service.world.cluster.of(PLURAL)
    assert made["metadata"]["name"] == f"training-{first.training.id}"
    assert made["spec"]["dtype"] == "float32"
    assert first.training.state == api.TRAINING_STATE_PENDING
    assert first.training.estimate.memory_bytes > 0
    name = made["metadata"]["name"]
    await service.world.look(4, name)
    assert service.world.status(name)["trainingId"] == first.training.id  # the operator resolves it to the same id
    running = await service.get(first.training.id)
    assert (running.state, running.step, running.total_steps) == (api.TRAINING_STATE_RUNNING, 2, 4)
    assert [point.step for point in running.losses] == [1, 2, 3]  # from the file, which is ahead of the status
    assert running.truncated_rows == 1
    await service.world.until("Succeeded", name)
    done = await service.get(first.training.id)
    assert done.state == api.TRAINING_STATE_SUCCEEDED
    assert done.artifact_url.startswith("file:///")
    assert done.checkpoint_id in service.world.store.records
    assert len(done.losses) == 4
    assert (await service.submit(spec)).training.state == api.TRAINING_STATE_SUCCEEDED


async def test_what_is_wrong_is_refused_at_once_and_nothing_is_written(
    service: Service, spec: api.TrainingSpec
) -> None:
    for field, value, code in (
        ("batch_size", 3, grpc.StatusCode.INVALID_ARGUMENT),
        ("model", "/nowhere", grpc.StatusCode.NOT_FOUND),
        ("dataset", "/no/where", grpc.StatusCode.NOT_FOUND),
        ("dataset", "v-0123456789abcdef", grpc.StatusCode.FAILED_PRECONDITION),
    ):
        wrong = api.TrainingSpec()
        wrong.CopyFrom(spec)
        setattr(wrong, field, value)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.submit(wrong)
        assert caught.value.code() is code
    for unknown in ("x", ""):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.get(unknown)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert not service.world.cluster.of(PLURAL)


async def test_one_that_was_cancelled_goes_on_when_it_is_submitted_again(
    service: Service, spec: api.TrainingSpec
) -> None:
    training = (await service.submit(spec)).training
    name = f"training-{training.id}"
    await service.world.look(4, name)
    answer = await service.stub.CancelTraining(api.CancelTrainingRequest(id=training.id))
    assert answer.training.message == "cancelling"
    await service.world.until("Cancelled", name)
    assert (await service.get(training.id)).state == api.TRAINING_STATE_CANCELLED
    again = await service.stub.CancelTraining(api.CancelTrainingRequest(id=training.id))
    assert again.training.state == api.TRAINING_STATE_CANCELLED
    anew = await service.submit(spec)
    assert anew.existed
    assert anew.training.state == api.TRAINING_STATE_PENDING
    await service.world.until("Succeeded", name)
    first, second = (resumed for _, resumed in service.world.kubelet.trained)
    assert first == 0
    assert second >= 2


async def test_one_that_is_being_cancelled_goes_on_when_it_is_submitted_again_at_once(
    service: Service, spec: api.TrainingSpec
) -> None:
    training = (await service.submit(spec)).training
    name = f"training-{training.id}"
    await service.world.look(4, name)
    await service.stub.CancelTraining(api.CancelTrainingRequest(id=training.id))
    await service.submit(spec)
    await service.world.until("Succeeded", name)
    assert service.world.status(name)["attempt"] == 2


async def test_one_that_failed_is_started_anew(service: Service, spec: api.TrainingSpec) -> None:
    service.world.kubelet.outcome = BAD
    training = (await service.submit(spec)).training
    name = f"training-{training.id}"
    await service.world.until("Failed", name)
    failed = await service.get(training.id)
    assert (failed.state, failed.message) == (api.TRAINING_STATE_FAILED, BAD.message)
    service.world.kubelet.outcome = GOOD
    assert (await service.submit(spec)).training.state == api.TRAINING_STATE_PENDING
    assert (await service.submit(spec)).training.state == api.TRAINING_STATE_PENDING
    assert service.world.cluster.objects[PLURAL, name]["spec"]["attempt"] == 2  # once, however often it is requested
    await service.world.until("Succeeded", name)


async def test_fine_tune_jobs_that_people_applied_are_trainings_too(service: Service, spec: api.TrainingSpec) -> None:
    await service.world.apply("by-hand", seed=77)
    before = await service.get("by-hand")
    assert before.spec.seed == 77
    await service.world.look(3, "by-hand")
    await service.submit(spec)
    listed = (await service.stub.ListTrainings(api.ListTrainingsRequest())).trainings
    assert {each.spec.seed for each in listed} == {77, 3}
    by_hand = next(each for each in listed if each.spec.seed == 77)
    assert by_hand.id == service.world.status("by-hand")["trainingId"]
    assert (await service.get(by_hand.id)).spec.seed == 77
    await service.stub.CancelTraining(api.CancelTrainingRequest(id=by_hand.id))
    await service.world.until("Cancelled", "by-hand")


async def test_a_watch_tells_of_changes_until_the_end_and_ends_with_the_service(
    service: Service, spec: api.TrainingSpec
) -> None:
    training = (await service.submit(spec)).training
    name = f"training-{training.id}"

    async def seen() -> list[api.Training]:
        call = service.stub.WatchTraining(api.WatchTrainingRequest(id=training.id), timeout=60)
        return [answer.training async for answer in call]

    watching = asyncio.create_task(seen())
    await asyncio.sleep(0.3)
    await service.world.look(3, name)
    await asyncio.sleep(1.3)
    await service.world.until("Succeeded", name)
    states = [each.state for each in await watching]
    assert states[0] == api.TRAINING_STATE_PENDING
    assert api.TRAINING_STATE_RUNNING in states
    assert states[-1] == api.TRAINING_STATE_SUCCEEDED
    other = api.TrainingSpec()
    other.CopyFrom(spec)
    other.seed = 9
    waiting = (await service.submit(other)).training
    call = service.stub.WatchTraining(api.WatchTrainingRequest(id=waiting.id), timeout=60)
    assert (await call.read()).training.id == waiting.id
    await service.readiness.drain()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_settings_of_a_cluster_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEALIGN_TRAINER_BACKEND", "kubernetes")
    with pytest.raises(ConfigurationError, match="namespace is required"):
        load(TrainerSettings)
    monkeypatch.setenv("CODEALIGN_TRAINER_NAMESPACE", "lab")
    with pytest.raises(ConfigurationError, match="device auto is not supported"):
        load(TrainerSettings)
    monkeypatch.setenv("CODEALIGN_TRAINER_DEVICE", "cuda")
    assert load(TrainerSettings).device == "cuda"
