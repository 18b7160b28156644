"""Reconciliation of a FineTuneJob, with an in-memory API at which the operator can be killed."""

from __future__ import annotations

import asyncio
import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from prometheus_client import REGISTRY

from codealign.api.dataset.v1 import dataset_pb2
from codealign.common.clients import Addresses, Clients
from codealign.common.errors import Unavailable
from codealign.trainer.cluster import reconcile
from codealign.trainer.cluster.api import ApiRefusal
from codealign.trainer.cluster.manifests import job_name
from codealign.trainer.cluster.reconcile import Reconciler
from codealign.trainer.cluster.resource import API_VERSION, KIND, PLURAL, QUEUE_LABEL, Object
from codealign.trainer.cluster.settings import OperatorSettings
from codealign.trainer.cluster.status import Happening
from codealign.trainer.sft.progress import Outcome, ProgressWriter
from trainer.tests.fake_cluster import FakeCluster, FarKubelet, Killed, Kubelet

TEMPLATE: Object = {
    "metadata": {"labels": {"app": "training"}},
    # Like a chart's rendering of an empty list.
    "spec": {
        "containers": [{"name": "trainer", "image": "trainer:1", "env": None, "resources": {"limits": {"cpu": "2"}}}]
    },
}
GOOD = Outcome("succeeded", final_loss=1.5, steps=4)
BAD = Outcome("failed", message="step 4: loss or gradient is not a number")


class Store:
    """The dataset service's Append; it may be unavailable."""

    def __init__(self) -> None:
        self.addresses = Addresses(dataset="store:1")
        self.dataset = self
        self.Append = "Append"
        self.records: dict[str, Any] = {}
        self.away = False
        self.kill: str = ""

    async def call(self, _method: object, request: dataset_pb2.AppendRequest, **_: object) -> object:
        if self.kill == "before":
            self.kill = ""
            raise Killed
        if self.away:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the store is away")
        inserted, exists = dataset_pb2.APPEND_OUTCOME_INSERTED, dataset_pb2.APPEND_OUTCOME_EXISTED
        results = []
        for record in request.records:
            outcome = exists if record.id in self.records else inserted
            self.records.setdefault(record.id, record)
            results.append(dataset_pb2.AppendResult(id=record.id, outcome=outcome))
        if self.kill == "after":
            self.kill = ""
            raise Killed
        return dataset_pb2.AppendResponse(results=results)


class World:
    """A namespace, its volume, and its operator.

    Args:
        folder: Holds everything.
        spec: Spec of its FineTuneJobs.
        outcome: How trainings end.
        url: URL for training state, in place of a volume.
    """

    def __init__(self, folder: Path, spec: Mapping[str, Any], outcome: Outcome = GOOD, *, url: bool = False) -> None:
        self.cluster, self.store = FakeCluster(), Store()
        self.kubelet = FarKubelet(self.cluster, outcome, folder / "pods") if url else Kubelet(self.cluster, outcome)
        self.spec = dict(spec)
        self.told: list[Happening] = []
        self.settings = OperatorSettings(
            namespace="lab",
            pod_template=folder / "none",
            data_dir=folder / "data",
            artifacts_url=(folder / "artifacts").as_uri() if url else "",
            cache_dir=folder / "cache",
            dataset_address="store:1",
        )
        self.restart()

    def restart(self) -> None:
        clients = cast(Clients, self.store)
        self.operator = Reconciler(
            self.cluster, self.settings, TEMPLATE, clients, lambda _resource, happening: self.told.append(happening)
        )

    async def apply(self, name: str = "one", labels: Mapping[str, str] | None = None, **changes: Any) -> None:
        metadata: Object = {"name": name, "labels": dict(labels or {})}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {**self.spec, **changes}}
        await self.cluster.create(PLURAL, body)

    async def change(self, name: str = "one", **spec: Any) -> None:
        await self.cluster.patch(PLURAL, name, {"spec": spec})

    async def look(self, times: int = 1, *names: str) -> None:
        """Run the operator's poll and let time pass. A killed operator is replaced by a new one."""
        for _ in range(times):
            for name in names or ("one",):
                try:
                    await self.operator.reconcile(name)
                except Killed:
                    self.restart()
            self.kubelet.step()

    async def until(self, state: str, name: str = "one", most: int = 60) -> None:
        for _ in range(most):
            if self.status(name).get("state") == state:
                return
            await self.look(1, name)
        pytest.fail(f"{self.status(name)}")

    async def delete(self, name: str = "one", most: int = 10, kill_at: tuple[int, bool] | None = None) -> None:
        """Delete as the API server and kopf do: call the finalizer until it is done."""
        self.cluster.kill_at = None
        await self.cluster.delete(PLURAL, name)
        self.cluster.calls, self.cluster.kill_at = 0, kill_at
        for _ in range(most):
            try:
                if await self.operator.finalize(copy.deepcopy(self.cluster.objects[PLURAL, name])):
                    self.cluster.drop(PLURAL, name)
                    return
            except Killed:
                self.restart()
            self.kubelet.step()
        pytest.fail("the finalizer does not end")

    def status(self, name: str = "one") -> Object:
        return dict(self.cluster.objects[PLURAL, name].get("status") or {})

    def condition(self, kind: str, name: str = "one") -> tuple[str, str, str]:
        (found,) = (each for each in self.status(name)["conditions"] if each["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def folder(self, name: str = "one") -> Path:
        root = Path(self.settings.artifacts_url.removeprefix("file://") or self.settings.data_dir)
        return root / "trainings" / str(self.status(name)["trainingId"])

    def jobs(self) -> list[str]:
        """Return every Job that was ever created."""
        return [name for kind, name in self.cluster.created if kind == "jobs"]


@pytest.fixture
def spec(model_folder: Path, dataset_folder: Path) -> Object:
    return {"model": str(model_folder), "dataset": str(dataset_folder), "batchSize": 4, "workers": 2}


@pytest.fixture(params=["volume", "url"])
def world(request: pytest.FixtureRequest, tmp_path: Path, spec: Object) -> World:
    return World(tmp_path, spec, url=request.param == "url")


async def test_a_fine_tune_job_is_prepared_run_followed_and_entered_into_the_store(world: World) -> None:
    await world.apply()
    await world.look()
    assert world.condition("Prepared")[:2] == ("True", "Found")
    assert world.status()["state"] == "Pending"
    (job,) = world.cluster.of("jobs")
    assert job["metadata"]["name"] == job_name(world.status()["trainingId"]) == world.status()["jobName"]
    assert [made["metadata"]["name"] for made in world.cluster.of("services")] == [job["metadata"]["name"]]
    await world.look(3)
    now = world.status()
    assert (now["state"], now["step"], now["totalSteps"], now["checkpointStep"]) == ("Running", 2, 4, 2)
    assert (now["loss"], now["secondsLeft"], now["tokensPerSecond"]) == (2.5, 1.0, 5.0)
    assert "losses" not in str(now)
    assert world.condition("Running")[0] == "True"
    await world.until("Succeeded")
    done = world.status()
    assert world.condition("Succeeded")[0] == "True"
    assert world.condition("Running")[0] == "False"
    assert done["artifactUrl"] == (world.folder() / "model").as_uri()
    assert done["checkpointId"] in world.store.records
    assert len(world.store.records) == 2
    assert done["completionTime"]
    assert [each.reason for each in world.told] == ["Found", "JobCreated", "PodsRun", "Trained"]


async def test_the_checkpoint_of_a_training_that_started_over_is_not_shown(world: World) -> None:
    await world.apply()
    await world.look()
    await world.look(3)
    assert world.status()["checkpointStep"] == 2
    counts = {"total_steps": 4, "rows": 8, "truncated_rows": 0, "dropped_rows": 0, "trained_tokens": 0}
    ProgressWriter(world.folder() / "progress.jsonl").write("started", resumed_step=0, **counts)
    await world.look()
    assert "checkpointStep" not in world.status()
    await world.until("Succeeded")  # a training that runs on would count in this process's metrics


def shown(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"codealign_{name}", labels) or 0.0


async def test_a_fine_tune_job_is_in_the_operators_metrics_while_it_exists(world: World) -> None:
    before = {
        name: shown(name, **labels)
        for name, labels in (
            ("trainer_steps_total", {}),
            ("trainer_ended_trainings_total", {"state": "succeeded"}),
            ("operator_reconcile_seconds_count", {}),
        )
    }
    await world.apply()
    await world.look()
    assert shown("operator_finetunejobs", state="pending") == 1
    await world.look(3)
    model = Path(world.spec["model"]).name
    assert shown("operator_finetunejobs", state="running") == shown("trainer_running_trainings") == 1
    assert (shown("trainer_step", model=model), shown("trainer_planned_steps", model=model)) == (2, 4)
    assert shown("trainer_loss", model=model) == 2.5
    await world.until("Succeeded")
    await world.look()
    assert shown("operator_finetunejobs", state="succeeded") == 1
    assert shown("trainer_running_trainings") == shown("trainer_tokens_per_second", model=model) == 0
    assert shown("trainer_ended_trainings_total", state="succeeded") == before["trainer_ended_trainings_total"] + 1
    assert shown("trainer_steps_total") > before["trainer_steps_total"]
    assert shown("operator_reconcile_seconds_count") >= before["operator_reconcile_seconds_count"] + 5
    await world.delete()
    assert shown("operator_finetunejobs", state="succeeded") == 0


async def _calls(world: World) -> int:
    await world.apply()
    world.cluster.calls = 0
    await world.until("Succeeded")
    return world.cluster.calls


async def test_an_operator_that_is_killed_at_any_call_loses_nothing(tmp_path: Path, spec: Object) -> None:
    calls = await _calls(World(tmp_path / "whole", spec))
    assert calls > 15
    for number in range(1, calls + 1):
        for had_effect in (False, True):
            world = World(tmp_path / f"{number}-{had_effect}", spec)
            await world.apply()
            world.cluster.calls, world.cluster.kill_at = 0, (number, had_effect)
            await world.until("Succeeded")
            assert world.cluster.calls >= number
            assert len(world.jobs()) == 1
            assert [resumed for _, resumed in world.kubelet.trained] == [0]
            assert len(world.store.records) == 2
            assert world.status()["checkpointId"] in world.store.records


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_operator_that_is_killed_as_it_enters_the_record_enters_it_once(world: World, when: str) -> None:
    await world.apply()
    world.store.kill = when
    await world.until("Succeeded")
    assert world.store.kill == ""
    assert len(world.store.records) == 2


async def test_an_operator_that_is_killed_before_it_says_what_it_prepared_prepares_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.apply()
    save = world.operator._library.save

    def saving(entry: Any) -> None:
        save(entry)
        raise Killed

    monkeypatch.setattr(world.operator._library, "save", saving)
    await world.look()
    assert "trainingId" not in world.status()
    await world.until("Succeeded")
    assert len(world.jobs()) == 1


async def test_a_restart_of_the_operator_between_all_looks_changes_nothing(world: World) -> None:
    await world.apply()
    for _ in range(40):
        world.restart()
        await world.look()
    assert world.status()["state"] == "Succeeded"
    assert len(world.jobs()) == 1
    assert [each.reason for each in world.told].count("Trained") == 1


async def test_a_killed_cancel_and_a_killed_deletion_are_finished(tmp_path: Path, spec: Object) -> None:
    for number in range(1, 9):
        for had_effect in (False, True):
            world = World(tmp_path / f"{number}-{had_effect}", spec)
            await world.apply()
            await world.look(4)
            await world.change(cancel=True)
            world.cluster.calls, world.cluster.kill_at = 0, (number, had_effect)
            await world.until("Cancelled")
            assert not world.cluster.of("jobs")
            assert (world.folder() / "checkpoints").is_dir()
            folder = world.folder()
            await world.delete(kill_at=(number, had_effect))
            assert not folder.exists()
            assert not world.cluster.objects


async def test_what_cannot_be_prepared_fails_and_says_why(tmp_path: Path, spec: Object) -> None:
    for wrong, reason, words in (
        ({"model": "/nowhere"}, "NotFound", "spec.model /nowhere"),
        ({"dataset": "/nowhere/data"}, "NotFound", "spec.dataset /nowhere/data"),
        ({"dataset": "words"}, "InvalidArgument", "spec.dataset"),
        ({"modelRevision": "1" * 64}, "FailedPrecondition", "spec.model_revision"),
        ({"batchSize": 3}, "InvalidArgument", "spec.batch_size"),
        ({"learningRates": 3}, "InvalidArgument", "learningRates"),
    ):
        world = World(tmp_path / reason / str(len(words)), spec)
        await world.apply(**cast(dict[str, Any], wrong))
        await world.look(2)
        assert world.status()["state"] == "Failed"
        assert world.condition("Failed")[:2] == ("True", reason)
        assert words in world.condition("Failed")[2]
        assert world.condition("Prepared")[0] == "False"
        assert not world.jobs()
        assert [each.warning for each in world.told if each.reason == reason][-1]


async def test_a_dataset_service_that_is_away_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.apply()
    said: list[str] = []

    async def away(*_: object) -> None:
        said.append(world.condition("Prepared")[2])
        raise Unavailable("the dataset service does not say where v-1 lies")

    with monkeypatch.context() as patch:
        patch.setattr(reconcile, "prepare", away)
        await world.look(3)
    assert said[0] == f"looking for {world.spec['model']} and {world.spec['dataset']}"  # this may take time
    assert world.status()["state"] == "Pending"
    assert [each.reason for each in world.told] == ["Unavailable", "NotPrepared"]
    assert world.condition("Prepared") == ("False", "Unavailable", "the dataset service does not say where v-1 lies")
    assert "retrying" in world.status()["message"]
    world.store.away = True
    for _ in range(30):
        await world.look()
    assert world.status()["state"] == "Running"
    assert world.condition("Running")[:2] == ("False", "RecordWaits")
    assert "the store is away" in world.status()["message"]
    world.store.away = False
    await world.until("Succeeded")
    assert len(world.jobs()) == 1


async def test_a_failure_says_what_the_program_said_and_a_higher_attempt_goes_on(tmp_path: Path, spec: Object) -> None:
    world = World(tmp_path, spec, BAD)
    await world.apply()
    await world.until("Failed")
    assert world.condition("Failed") == ("True", "TrainingFailed", BAD.message)
    await world.look(3)
    assert len(world.jobs()) == 1  # it stays unchanged
    world.kubelet.outcome = GOOD
    await world.change(attempt=2)
    await world.until("Succeeded")
    assert len(world.jobs()) == 2
    assert [resumed for _, resumed in world.kubelet.trained] == [0, 4]
    assert world.status()["attempt"] == 2
    assert world.condition("Failed")[0] == "False"


async def test_a_cancelled_one_keeps_its_checkpoint_and_goes_on_when_that_is_taken_back(world: World) -> None:
    await world.apply()
    await world.look(4)
    await world.change(cancel=True)
    await world.until("Cancelled")
    assert world.condition("Failed")[:2] == ("True", "Cancelled")
    assert "checkpoint of step 2 is kept" in world.status()["message"]
    await world.look(3)
    assert world.status()["state"] == "Cancelled"
    await world.change(cancel=False)
    await world.until("Succeeded")
    first, second = (resumed for _, resumed in world.kubelet.trained)
    assert first == 0
    assert second >= 2


async def test_a_suspended_one_has_no_pods_and_goes_on(world: World) -> None:
    await world.apply(suspend=True)
    await world.look(2)
    assert world.condition("Suspended")[0] == "True"
    assert world.status()["state"] == "Suspended"
    assert not world.jobs()
    await world.change(suspend=False)
    await world.look(4)
    assert world.condition("Suspended")[0] == "False"
    await world.change(suspend=True)
    await world.look(2)
    assert world.status()["state"] == "Suspended"
    assert world.cluster.of("jobs")[0]["spec"]["suspend"] is True
    assert not world.cluster.of("pods")
    await world.change(suspend=False)
    await world.until("Succeeded")
    assert len(world.jobs()) == 1


async def test_what_kueue_has_queued_is_kueues_to_start(world: World) -> None:
    await world.apply(labels={QUEUE_LABEL: "gpus"})
    await world.look(4)
    (job,) = world.cluster.of("jobs")
    assert job["metadata"]["labels"][QUEUE_LABEL] == "gpus"
    assert job["spec"]["suspend"] is True
    assert world.condition("Suspended")[1:] == ("Queued", "waiting in Kueue queue gpus")
    await world.cluster.patch("jobs", job["metadata"]["name"], {"spec": {"suspend": False}})  # admitted
    await world.look(3)
    assert world.status()["state"] == "Running"
    await world.change(suspend=True)
    await world.look(3)
    assert not world.cluster.of("jobs")  # Kueue would restart a Job that is only suspended
    await world.change(suspend=False)
    await world.look(2)
    assert world.cluster.of("jobs")[0]["spec"]["suspend"] is True


async def test_two_that_mean_the_same_training_do_not_run_it_twice(world: World) -> None:
    await world.apply("one")
    await world.apply("two")
    await world.look(4, "one", "two")
    assert world.status("two")["state"] == "Pending"
    assert world.condition("Running", "two")[1] == "SameTraining"
    assert "FineTuneJob one" in world.status("two")["message"]
    folder = world.folder()
    await world.delete("two")
    assert folder.is_dir()  # the other FineTuneJob's
    await world.apply("two")
    await world.look(30, "one", "two")
    assert world.status("one")["state"] == world.status("two")["state"] == "Succeeded"
    assert len(world.jobs()) == 1
    assert world.status("one")["checkpointId"] == world.status("two")["checkpointId"]


async def test_one_goes_on_where_another_one_of_the_same_training_has_failed(tmp_path: Path, spec: Object) -> None:
    world = World(tmp_path, spec, BAD)
    await world.apply("one")
    await world.until("Failed")
    await world.look(3)
    world.kubelet.outcome = GOOD
    await world.apply("two")
    await world.until("Succeeded", "two")
    assert world.status("one")["state"] == "Failed"
    (service,) = world.cluster.of("services")
    assert service["metadata"]["ownerReferences"][0]["name"] == "two"


async def test_why_pods_do_not_run_is_in_the_condition(world: World) -> None:
    await world.apply()
    await world.look()
    name = world.cluster.of("jobs")[0]["metadata"]["name"]
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    pulling = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image trainer:1"}}}
    for status, reason, words in (
        ({"phase": "Pending", "conditions": [unschedulable]}, "Unschedulable", "3 Insufficient nvidia.com/gpu"),
        ({"phase": "Pending", "containerStatuses": [pulling]}, "ImagePullBackOff", "Back-off pulling image trainer:1"),
        ({"phase": "Running"}, "PodDoesNotEnd", "node node-7 does not confirm that it has"),
    ):
        pod = world.cluster.objects["pods", f"{name}-1"]
        pod["status"] = status
        if reason == "PodDoesNotEnd":
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            pod["spec"] = {"nodeName": "node-7"}
        await world.operator.reconcile("one")
        assert world.condition("Running")[:2] == ("False", reason)
        assert words in world.condition("Running")[2]
        assert f"{name}-1" in world.status()["message"]
        assert world.told[-1].warning


async def test_why_a_job_has_no_pods_is_in_the_condition(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_NO_PODS_SECONDS", -1.0)
    await world.apply()
    await world.operator.reconcile("one")
    name = world.cluster.of("jobs")[0]["metadata"]["name"]
    event = {"metadata": {"name": "e"}, "type": "Warning", "message": "exceeded quota: gpus"}
    world.cluster.put("events", {**event, "involvedObject": {"name": name}})
    await world.operator.reconcile("one")
    assert world.condition("Running")[1] == "NoPods"
    assert "exceeded quota: gpus" in world.status()["message"]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("DeadlineExceeded", "raise it"),
        ("BackoffLimitExceeded", "spec.gradientCheckpointing"),
        ("PodFailurePolicy", "exit code 42"),
    ],
)
async def test_a_job_that_failed_without_an_outcome_is_a_failure(world: World, reason: str, words: str) -> None:
    await world.apply()
    await world.look(3)
    job = world.cluster.of("jobs")[0]
    ended = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:00Z", "message": "step 2\nKilled"}
    world.cluster.of("pods")[0]["status"] = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]}
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": "exit code 42"}
    job["status"] = {"conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    await world.operator.reconcile("one")
    assert world.condition("Failed")[:2] == ("True", reason)
    for part in (words, "OOMKilled, status 137: Killed", "increase spec.attempt", "the checkpoint of step 2"):
        assert part in world.status()["message"]


async def test_a_refusal_of_the_api_server_is_said_and_tried_again(world: World) -> None:
    await world.apply()
    world.cluster.refuse = lambda verb, kind: (
        ApiRefusal(403, "forbidden: exceeded quota") if (verb, kind) == ("create", "jobs") else None
    )
    await world.look(2)
    assert world.condition("Running")[:2] == ("False", "ApiRefused")
    assert "exceeded quota" in world.status()["message"]
    world.cluster.refuse = lambda _verb, _kind: None
    await world.until("Succeeded")


async def test_a_defect_of_the_operator_is_said_and_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.apply()
    with monkeypatch.context() as patched:
        patched.setattr("codealign.trainer.cluster.manifests.job", lambda *_, **__: 1 / 0)
        await world.look(3)
    assert "unexpected ZeroDivisionError" in str(world.status()["message"])
    await world.until("Succeeded")


async def test_an_api_server_that_is_away_changes_nothing(world: World) -> None:
    await world.apply()
    await world.look(2)
    before = copy.deepcopy(world.cluster.objects)
    world.cluster.refuse = lambda _verb, _kind: cast(ApiRefusal, Unavailable("away"))
    with pytest.raises(Unavailable):
        await world.operator.reconcile("one")
    assert world.cluster.objects == before


async def test_a_deadline_can_be_changed_while_it_runs(world: World) -> None:
    await world.apply(activeDeadlineSeconds=60)
    await world.look(2)
    assert world.cluster.of("jobs")[0]["spec"]["activeDeadlineSeconds"] == 60
    await world.change(activeDeadlineSeconds=120)
    await world.look()
    assert world.cluster.of("jobs")[0]["spec"]["activeDeadlineSeconds"] == 120
    await world.change(activeDeadlineSeconds=None)
    await world.look()
    assert "activeDeadlineSeconds" not in world.cluster.of("jobs")[0]["spec"]


async def test_it_is_deleted_after_its_time_and_the_result_stays(world: World) -> None:
    await world.apply(ttlSecondsAfterFinished=0)
    await world.until("Succeeded")
    await world.look(2)
    assert world.cluster.objects[PLURAL, "one"]["metadata"]["deletionTimestamp"]
    folder = world.folder()
    await world.delete()
    assert (folder / "model" / "model.safetensors").is_file()
    assert not (folder / "checkpoints").exists()
    await world.apply("again")
    await world.until("Succeeded", "again")
    assert len(world.jobs()) == 1  # the result exists already


async def test_without_a_time_it_stays(world: World) -> None:
    await world.apply()
    await world.until("Succeeded")
    await world.look(3)
    assert "deletionTimestamp" not in world.cluster.objects[PLURAL, "one"]["metadata"]


async def test_a_result_that_somebody_removed_is_made_again(world: World) -> None:
    await world.apply()
    await world.until("Succeeded")
    await world.look(2)
    shutil.rmtree(world.folder() / "model")
    await world.change(attempt=2)
    await world.until("Running")
    await world.until("Succeeded")
    assert (world.folder() / "model").is_dir()


async def test_files_that_are_gone_are_made_again(world: World) -> None:
    await world.apply()
    await world.look()
    (world.folder() / "job.json").unlink()
    await world.operator.reconcile("one")
    assert (world.folder() / "job.json").is_file()
    await world.until("Succeeded")


async def test_one_that_is_not_there_or_is_being_deleted_is_left_alone(world: World) -> None:
    await world.operator.reconcile("nobody")
    await world.apply()
    await world.cluster.delete(PLURAL, "one")
    await world.look(2)
    assert not world.jobs()
    assert not world.status()
    assert await world.operator.finalize(world.cluster.objects[PLURAL, "one"])


async def test_fine_tune_jobs_do_not_wait_for_each_other(world: World) -> None:
    for number in range(3):
        await world.apply(f"job-{number}", seed=number)
    await asyncio.gather(*(world.operator.reconcile(f"job-{number}") for number in range(3)))
    assert len(set(world.jobs())) == 3
