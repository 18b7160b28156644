"""Generation over several workers: a gateway without a model, and what its workers hold."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from codealign.common.settings import load
from codealign.inference.settings import InferenceSettings
from tests.charts.rendered import CASES, FULL, WORKERS, Pod, Rendered, parsed, rendered, template
from tests.charts.test_chart import environment, server_of

COMPONENT = "app.kubernetes.io/component"
ENABLED = "--set=inference.workers.enabled=true"


def settings(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> InferenceSettings:
    with monkeypatch.context() as patched:
        for name, value in environment(server_of(pod)).items():
            patched.setenv(name, value)
        return load(InferenceSettings)


def cache(chart: Rendered) -> dict[str, object]:
    (found,) = (volume for volume in chart.pod(WORKERS).spec["volumes"] if volume["name"] == "cache")
    return {key: value for key, value in found.items() if key != "name"}


def test_without_workers_the_service_is_one_pod_with_the_model() -> None:
    chart = rendered("gpu-multi")
    assert WORKERS not in {pod.component for pod in chart.pods()}
    assert "CODEALIGN_INFERENCE_WORKER_TARGET" not in environment(server_of(chart.pod("inference")))
    assert chart.pod("inference").owner["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("case", ["workers", "workers-keda", "no-tls-workers"])
def test_the_gateway_has_neither_gpu_nor_model_and_workers_are_told_what_to_load(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart = rendered(case)
    gateway, worker = (chart.pod(component) for component in ("inference", WORKERS))
    assert "nvidia.com/gpu" not in str(gateway.spec)
    assert {volume["name"] for volume in gateway.spec["volumes"]} <= {"tmp", "tls"}
    assert "envFrom" not in server_of(gateway)
    of_gateway, of_worker = settings(gateway, monkeypatch), settings(worker, monkeypatch)
    assert of_gateway.worker_target == f"dns:///{FULL}-{WORKERS}:7400"
    assert of_gateway.model
    assert of_worker.worker_of_gateway
    assert not of_worker.worker_target
    assert not of_worker.model
    assert of_worker.engine == of_gateway.engine
    if case != "no-tls-workers":
        assert of_gateway.worker_tls_name == f"{FULL}-{WORKERS}"
        assert of_gateway.worker_tls_cert_file is not None


def test_settings_are_those_of_the_workers_and_the_gateway_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = rendered("workers-keda")
    gateway, worker = (settings(chart.pod(each), monkeypatch) for each in ("inference", WORKERS))
    assert (worker.slots, worker.max_context) == (196, 4096)
    assert gateway.max_waiting == 20_000
    assert gateway.worker_wait_seconds == 3600, "samples wait until a worker has started"
    own = template(*CASES["workers-keda"], "--set=inference.workers.gateway.settings.worker_wait_seconds=5")
    assert settings(parsed(own.stdout).pod("inference"), monkeypatch).worker_wait_seconds == 5
    assert settings(rendered("workers").pod("inference"), monkeypatch).worker_wait_seconds == 30


def test_stages_and_copies_divide_the_workers_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    done = template(
        *CASES["workers"],
        *("--set=inference.gpu.count=8", "--set=inference.workers.pipelineParallel=2"),
        '--set-json=inference.settings.vllm_args={"max_num_seqs":64,"data_parallel_size":4}',
    )
    found = settings(parsed(done.stdout).pod(WORKERS), monkeypatch)
    assert found.vllm_tensor_parallel == 2
    assert found.vllm_args == {"max_num_seqs": 64, "data_parallel_size": 4, "pipeline_parallel_size": 2}
    assert settings(rendered("workers").pod(WORKERS), monkeypatch).vllm_args == {"data_parallel_size": 2}
    assert settings(rendered("workers-keda").pod(WORKERS), monkeypatch).vllm_args == {}


def test_a_fixed_number_of_workers_and_several_gateways_survive_the_loss_of_a_node() -> None:
    chart = rendered("workers")
    gateway, worker = (chart.pod(each) for each in ("inference", WORKERS))
    assert gateway.owner["spec"]["replicas"] == 2
    assert gateway.owner["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert worker.owner["spec"]["replicas"] == 3
    assert worker.owner["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "25%"}
    assert worker.spec["priorityClassName"] == "generation"
    (spread,) = worker.spec["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "DoNotSchedule"
    budgets = {each["metadata"]["name"]: each["spec"]["maxUnavailable"] for each in chart.of("PodDisruptionBudget")}
    assert budgets[gateway.name] == 1
    assert budgets[worker.name] == "25%"


def test_workers_are_found_before_they_are_ready_and_are_ready_with_their_models() -> None:
    chart = rendered("workers")
    (service,) = (each for each in chart.of("Service") if each["metadata"]["name"] == f"{FULL}-{WORKERS}")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert server_of(chart.pod(WORKERS))["startupProbe"]["grpc"]["service"] == "readiness"
    assert server_of(chart.pod("inference"))["startupProbe"]["grpc"]["service"] == "liveness"


def test_keda_asks_the_gateway_for_workers() -> None:
    (scaler,) = (
        each for each in rendered("workers-keda").of("ScaledObject") if each["metadata"]["name"].endswith(WORKERS)
    )
    spec = scaler["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["cooldownPeriod"]) == (0, 16, 900)
    assert spec["triggers"][0]["metadata"].keys() == {"scalerAddress", "waitSeconds"}
    done = template(*CASES["workers-keda"], "--set=inference.workers.scaling.samplesPerWorker=64")
    triggers = [each["spec"]["triggers"][0]["metadata"] for each in parsed(done.stdout).of("ScaledObject")]
    assert [each["samplesPerWorker"] for each in triggers if "samplesPerWorker" in each] == ["64"]


@pytest.mark.parametrize(
    ("values", "volume"),
    [
        ((), {"emptyDir": {}}),
        (("kind=hostPath", "path=/mnt/models"), {"hostPath": {"path": "/mnt/models", "type": "Directory"}}),
        (("kind=modelCache",), {"persistentVolumeClaim": {"claimName": f"{FULL}-models"}}),
        (
            ("kind=ephemeral", "size=300Gi", "class=local"),
            {
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "storageClassName": "local",
                            "resources": {"requests": {"storage": "300Gi"}},
                        }
                    }
                }
            },
        ),
    ],
)
def test_models_are_cached_where_the_values_say(values: tuple[str, ...], volume: dict[str, object]) -> None:
    done = template(ENABLED, *(f"--set=inference.workers.cache.{value}" for value in values))
    assert cache(parsed(done.stdout)) == volume


def test_a_cache_that_nobody_mounts_is_not_created() -> None:
    s3 = ("--set=dataset.versionsUrl=s3://b/v", "--set=trainer.artifactsUrl=s3://b/a")
    once = "--set=modelCache.accessModes={ReadWriteOnce}"
    assert parsed(template(*s3, once).stdout).of("PersistentVolumeClaim")
    assert not parsed(template(ENABLED, *s3, once).stdout).of("PersistentVolumeClaim")


def test_a_workers_certificate_opens_nothing() -> None:
    asked = parsed(template(ENABLED, "--set=tls.mode=certManager").stdout).of("Certificate")
    (found,) = (each["spec"] for each in asked if each["spec"].get("commonName") == WORKERS)
    assert "client auth" not in json.dumps(found["usages"])


NODES = (
    *("--values=values-gpu-workers.yaml", "--values=values-gpu-nodes.yaml"),
    "--api-versions=leaderworkerset.x-k8s.io/v1",
)
GROUPS: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["leaderWorkerTemplate"],
    "properties": {
        "replicas": {"type": "integer", "minimum": 0},
        "startupPolicy": {"enum": ["LeaderCreated", "LeaderReady"]},
        "networkConfig": {"type": "object"},
        "rolloutStrategy": {
            "type": "object",
            "additionalProperties": False,
            "required": ["type"],
            "properties": {
                "type": {"const": "RollingUpdate"},
                "rollingUpdateConfiguration": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "partition": {"type": "integer"},
                        "maxUnavailable": {"type": ["integer", "string"]},
                        "maxSurge": {"type": ["integer", "string"]},
                    },
                },
            },
        },
        "leaderWorkerTemplate": {
            "type": "object",
            "additionalProperties": False,
            "required": ["workerTemplate"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "restartPolicy": {"enum": ["RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]},
                "leaderTemplate": {"type": "object"},
                "workerTemplate": {"type": "object"},
                "subGroupPolicy": {"type": "object"},
                "volumeClaimTemplates": {"type": "array"},
                "persistentVolumeClaimRetentionPolicy": {"type": "object"},
            },
        },
    },
}
"""The spec of leaderworkerset.x-k8s.io/v1, as its API reference describes it. Its CRD repeats the schema of pods; here
the templates are checked against Kubernetes' own."""


def groups(chart: Rendered) -> dict[str, Any]:
    (found,) = chart.of("LeaderWorkerSet")
    return found


def test_a_model_that_spans_nodes_is_a_group_that_leaderworkerset_and_kubernetes_know() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    done = template(*NODES)
    assert done.returncode == 0, done.stderr
    chart = parsed(done.stdout)
    found = groups(chart)
    assert found["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
    jsonschema.validate(found["spec"], GROUPS)
    for name in ("leaderTemplate", "workerTemplate"):
        pod = found["spec"]["leaderWorkerTemplate"][name]
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **pod["metadata"]}, "spec": pod["spec"]}
        kubernetes_validate.validate(whole, "1.34", strict=True)
    for document in chart.documents:
        if document["kind"] in ("NetworkPolicy", "Service", "PodDisruptionBudget"):
            kubernetes_validate.validate(document, "1.34", strict=True)
    # LeaderWorkerSet makes a headless Service of its own name.
    assert found["metadata"]["name"] not in {each["metadata"]["name"] for each in chart.of("Service")}


def test_the_first_pod_of_a_group_is_a_worker_and_all_run_one_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    group = groups(parsed(template(*NODES).stdout))["spec"]["leaderWorkerTemplate"]
    leader, follower = group["leaderTemplate"], group["workerTemplate"]
    assert group["size"] == 2
    assert leader["metadata"]["labels"][COMPONENT] == WORKERS
    assert follower["metadata"]["labels"][COMPONENT] == "inference-nodes"
    server, first = leader["spec"]["containers"]
    (second,) = follower["spec"]["containers"]
    found = settings(Pod("leader", {}, {"containers": [server]}, {}), monkeypatch)
    assert found.worker_of_gateway
    assert (found.engine, found.vllm_grpc_address) == ("vllm-grpc", "127.0.0.1:50051")
    assert "nvidia.com/gpu" not in server["resources"]["limits"]
    assert first["resources"] == second["resources"]
    assert first["resources"]["limits"]["nvidia.com/gpu"] == "8"
    only = set(first["args"]) ^ set(second["args"])
    assert only == {"--host=127.0.0.1", "--grpc-port=50051", "--headless"}
    assert {"--tensor-parallel-size=8", "--pipeline-parallel-size=2", "--enable-expert-parallel"} <= set(first["args"])
    for pod in (leader, follower):
        mounted = {mount["name"] for each in pod["spec"]["containers"] for mount in each["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_vllm_of_a_group_runs_until_the_server_beside_it_has_drained() -> None:
    group = groups(parsed(template(*NODES, "--set=inference.drainSeconds=40").stdout))["spec"]["leaderWorkerTemplate"]
    server, first = group["leaderTemplate"]["spec"]["containers"]
    (second,) = group["workerTemplate"]["spec"]["containers"]
    assert "lifecycle" not in second
    program, option, code = first["lifecycle"]["preStop"]["exec"]["command"]
    assert (program, option) == ("python3", "-c")
    assert "monotonic() + 60" in code
    assert group["leaderTemplate"]["spec"]["terminationGracePeriodSeconds"] == 65
    (port,) = (each["containerPort"] for each in server["ports"] if each["name"] == "health")
    with socket.create_server(("127.0.0.1", 0)) as health:
        mine = code.replace(f'"127.0.0.1", {port}', f'"127.0.0.1", {health.getsockname()[1]}')
        assert mine != code
        waiting = subprocess.Popen([sys.executable, "-c", mine])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
    assert waiting.wait(30) == 0


def test_keda_scales_groups() -> None:
    scaling = ("--set=inference.workers.scaling.mode=keda", "--set=inference.workers.scaling.max=4")
    chart = parsed(template(*NODES, *scaling).stdout)
    found = groups(chart)
    assert "replicas" not in found["spec"]
    (target,) = (
        each["spec"]["scaleTargetRef"]
        for each in chart.of("ScaledObject")
        if each["metadata"]["name"].endswith(WORKERS)
    )
    assert target == {"apiVersion": found["apiVersion"], "kind": found["kind"], "name": found["metadata"]["name"]}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("engine=transformers", "gpu.count=0"), "inference.engine to vllm"),
        (("workers.dataParallel=2", "workers.pipelineParallel=1"), "dataParallel to 1"),
        (("workers.pipelineParallel=3",), "16 GPUs"),
        (("settings.vllm_quantization=fp8",), "inference.settings.vllm_quantization would have no effect"),
    ],
)
def test_groups_of_what_cannot_span_nodes_are_refused(values: tuple[str, ...], told: str) -> None:
    parts = ("--set=inference.workers.pipelineParallel=1",)
    done = template(*NODES, *parts, *(f"--set=inference.{value}" for value in values))
    assert done.returncode != 0
    assert told in done.stderr


def test_a_cluster_without_leaderworkerset_is_named() -> None:
    done = template(*NODES[:2])
    assert done.returncode != 0
    assert "no LeaderWorkerSet" in done.stderr
