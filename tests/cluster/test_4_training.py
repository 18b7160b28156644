"""FineTuneJobs: from a published version to a model that is served and evaluated; and manual calls of each service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from tests.cluster.conftest import Report
from tests.cluster.kube import CommandError, until
from tests.cluster.release import Release, conditions

BASE = "/opt/codealign/nano/model"
DOCUMENT = Path(__file__).parents[2] / "docs" / "install.md"
CALLS = {
    "inference": '"text":',
    "sandbox": "VERDICT_FAILED_ASSERTION",
    "dataset": '"example":',
    "training": "TRAINING_STATE_",
    "coordinator": "RUN_STATE_",
}
"""Expected content of each service's answer."""


def _job(name: str, **spec: Any) -> str:
    """Return a FineTuneJob."""
    kind = {"apiVersion": "codealign.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}}
    return json.dumps({**kind, "spec": {"model": BASE, "batchSize": 8, "maxLength": 512, **spec}})


def _status(release: Release, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(release.kubectl("get", "finetunejob", name, "--output=json"))
    return found


def _version(release: Release) -> str:
    listed = DatasetServiceStub(release.channel("dataset")).ListVersions(
        ds.ListVersionsRequest(), timeout=60, wait_for_ready=True
    )
    return str(listed.versions[0].name)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"dataset": "v-x", "workers": 3}, "spec.batchSize must be a multiple of spec.workers"),
        ({"dataset": "v-x", "optimizer": "sgd"}, 'spec.optimizer: Unsupported value: "sgd"'),
        ({"dataset": "v-x", "epoch": 1}, 'unknown field "spec.epoch"'),
        ({}, "spec.dataset: Required value"),
    ],
)
def test_an_invalid_job_is_rejected_with_what_to_do(demo: Release, spec: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandError) as rejected:
        demo.kubectl("create", "--filename=-", given=_job("wrong", **spec))
    assert said in str(rejected.value)


def test_a_job_on_a_dataset_that_is_not_there_fails_and_says_so(demo: Release) -> None:
    demo.kubectl("apply", "--filename=-", given=_job("nowhere", dataset="v-0000000000000000"))
    until("the job has failed", lambda: "Failed" in conditions(_status(demo, "nowhere")), 60)
    assert "v-0000000000000000" in conditions(_status(demo, "nowhere"))["Failed"]


def test_a_job_that_finds_no_gpu_says_so(other: Release) -> None:
    other.helm("upgrade", changed={"trainer.workers.gpu.count": "1"})
    other.wait_ready()
    other.kubectl("apply", "--filename=-", given=_job("on-gpus", dataset=_version(other)))
    until("it says what is missing", lambda: "nvidia.com/gpu" in json.dumps(_status(other, "on-gpus")), 120)
    other.kubectl("delete", "finetunejob", "on-gpus", "--timeout=60s")


@pytest.mark.timeout(900)
def test_a_job_of_two_pods_succeeds_though_a_pod_and_the_operator_are_lost(demo: Release, report: Report) -> None:
    version = _version(demo)
    job = _job("two-pods", dataset=version, workers=2, sharding="ddp", epochs=8, learningRate=0.001, checkpointSteps=3)
    with report.step(
        "a `FineTuneJob` of two pods; one of them and the operator are deleted after a checkpoint"
    ) as seen:
        demo.kubectl("apply", "--filename=-", given=job)
        until("a checkpoint", lambda: _status(demo, "two-pods").get("status", {}).get("checkpointStep", 0) > 0, 300)
        doomed = [*demo.pods("training-worker")[:1], *demo.pods("operator")]
        for pod in doomed:
            demo.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

        def ended() -> bool:
            now = conditions(_status(demo, "two-pods"))
            assert "Failed" not in now, now["Failed"]
            return "Succeeded" in now

        until("success", ended, 500)
        status = _status(demo, "two-pods")["status"]
        seen(f"{status['totalSteps']} steps, loss {status['loss']:.3f}, resumed from a checkpoint")
    assert len(doomed) == 2
    assert status["step"] == status["totalSteps"]
    assert status["artifactUrl"]


@pytest.mark.timeout(900)
def test_its_result_is_served_and_evaluated_in_the_cluster(demo: Release, report: Report) -> None:
    status = _status(demo, "two-pods")["status"]
    inference = InferenceServiceStub(demo.channel("inference"))
    dataset = DatasetServiceStub(demo.channel("dataset"))
    (checkpoint,) = dataset.Get(ds.GetRequest(ids=[status["checkpointId"]]), timeout=60, wait_for_ready=True).records
    with report.step("its result loaded with `LoadModel` and evaluated on 20 problems of NanoEval") as seen:
        loaded = inference.LoadModel(
            inf.LoadModelRequest(
                name="tuned", source=status["artifactUrl"], expected_revision=checkpoint.checkpoint.revision
            ),
            timeout=300,
            wait_for_ready=True,
        ).model

        def states() -> list[int]:
            model = inference.GetModel(inf.GetModelRequest(name="tuned"), timeout=30).model
            return [replica.state for replica in model.replicas]

        until("every worker has it", lambda: states() == [inf.REPLICA_STATE_READY] * 2, 120)
        settings = pb.EvaluationSettings(
            model=pb.ModelChoice(model="tuned", revision=loaded.revision),
            benchmarks=["nanoeval"],
            samples=1,
            max_tokens=160,
            prompt_style="tuned",
            limit=20,
        )
        request = api.EvaluateRequest(settings=settings)
        coordinator = CoordinatorServiceStub(demo.channel("coordinator"))
        *_, last = coordinator.Evaluate(request, timeout=600, wait_for_ready=True)
        result = last.evaluation
        seen(f"on both workers; pass@1 {result.pass_at_k[1]:.0%} of {result.problems_done}")
    assert (result.problems_done, result.model_revision) == (20, checkpoint.checkpoint.revision)
    inference.UnloadModel(inf.UnloadModelRequest(name="tuned"), timeout=60)


def _documented() -> dict[str, str]:
    """Return the document's grpcurl commands by service."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {found[1]: block for block in blocks if (found := re.search(r"codealign\.api\.(\w+)\.v1\.\w+/", block))}


@pytest.mark.parametrize("service", CALLS)
def test_each_service_answers_a_call_as_documented(demo: Release, service: str) -> None:
    component = "trainer" if service == "training" else service
    collections = DatasetServiceStub(demo.channel("dataset")).ListCollections(
        ds.ListCollectionsRequest(), timeout=60, wait_for_ready=True
    )
    environment = {
        **os.environ,
        **demo.environment(),
        "VERSION": _version(demo),
        "COLLECTION": next(each.name for each in collections.collections if each.name.startswith("seeds")),
    }
    command = re.sub(r"localhost:74\d\d", demo.address(component), _documented()[service])
    said = ""
    for _ in range(5):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
        )
        said = done.stdout + done.stderr
        if done.returncode == 0:
            break
        time.sleep(2)  # the forwarded port may have belonged to a replaced pod
    assert CALLS[service] in said, said


def test_a_job_that_was_submitted_by_grpc_is_a_finetunejob(demo: Release) -> None:
    until(
        "the submitted training has succeeded",
        lambda: all(
            "Succeeded" in conditions(job) or job["metadata"]["name"] == "nowhere" for job in demo.get("finetunejobs")
        ),
        300,
        every=2,
    )
    assert len(demo.get("finetunejobs")) == 3
