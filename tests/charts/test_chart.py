"""The chart: objects of every set of values, checked against the services and Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import schema
from codealign.common.settings import ServerSettings, load
from codealign.coordinator.settings import CoordinatorSettings
from codealign.inference.settings import InferenceSettings
from codealign.trainer.cluster.manifests import cpus, read_template
from codealign.trainer.cluster.settings import OperatorSettings
from tests.charts.rendered import (
    CASES,
    CHART,
    FULL,
    NAMESPACE,
    SERVICES,
    WORKERS,
    Pod,
    has_workers,
    helm,
    parsed,
    rendered,
    selects,
    template,
    text_of,
)

RENDERED = pytest.mark.parametrize("case", CASES)
ON_S3 = ("gpu-multi", "workers", "workers-keda")
VALUES = sorted(path.name for path in CHART.glob("values*.yaml"))
SERVERS = {**{name: name for name in SERVICES}, "runners": "runner"}
"""Components that are servers, and the classes of their settings."""


def servers(case: str) -> dict[str, str]:
    """Return the servers of one of CASES, as SERVERS does."""
    return {**SERVERS, WORKERS: "inference"} if has_workers(case) else SERVERS


EVERY_SERVER = pytest.mark.parametrize(
    ("case", "component"), [(case, component) for case in CASES for component in servers(case)]
)


def server_of(pod: Pod) -> dict[str, Any]:
    container: dict[str, Any] = pod.spec["containers"][0]
    return container


def environment(container: Mapping[str, Any]) -> dict[str, str]:
    """Return a container's variables, with placeholders for values from Secrets or the pod."""
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), "a variable is set twice"
    made_up = {"CODEALIGN_DATASET_DATABASE_URL": "postgresql://user:word@host/database"}
    return {
        entry["name"]: entry.get("value", made_up.get(entry["name"], "from elsewhere")) for entry in container["env"]
    }


@pytest.mark.parametrize("file", VALUES)
def test_helm_finds_nothing_to_say_of_any_values_file(file: str) -> None:
    done = helm("lint", ".", "--strict", f"--values={file}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def test_the_schema_is_that_of_the_comments() -> None:
    assert schema.SCHEMA.read_text() == schema.made(), "run `make chart-schema`"


def test_a_value_without_a_comment_is_an_error() -> None:
    with pytest.raises(schema.CommentError, match=r"^a\.b: "):
        schema.schema_of("# Said.\na:\n  b: 1\n")


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ("runners.scaling.mode=sometimes", "/runners/scaling/mode"),
        ("runners.scalling.mode=fixed", "scalling"),
        ("dataset.replicas=0", "/dataset/replicas"),
        ("dataset.settings.connexions=3", "connexions"),
        ("coordinator.settings.lease_seconds=0", "/coordinator/settings/lease_seconds"),
        ("inference.settings.dtype=float8", "/inference/settings/dtype"),
        ("sandbox.settings.isolation=process", "isolation"),
        ("tls.mode=maybe", "/tls/mode"),
        ("inference.gpu.count=many", "/inference/gpu/count"),
        ("externalDatabase.url=mysql://host/x", "/externalDatabase/url"),
        ("monitoring.interval=30", "/monitoring/interval"),
        ("trainer.gpu.count=1", "gpu"),
        ("trainer.workers.gpu.count=-1", "/trainer/workers/gpu/count"),
        ("operator.settings.max_restarts=-1", "/operator/settings/max_restarts"),
        ("operator.settings.namespace=x", "namespace"),
        ("trainer.artifactsUrl=/var/lib/artifacts", "/trainer/artifactsUrl"),
        ("trainer.settings.artifacts_url=s3://b/a", "artifacts_url"),
        ("networkPolicy.apiServer.ports={0}", "/networkPolicy/apiServer/ports"),
        ("inference.workers.scaling.mode=hpa", "/inference/workers/scaling/mode"),
        ("inference.workers.cache.kind=nfs", "/inference/workers/cache/kind"),
        ("inference.workers.maxUnavailable=some", "/inference/workers/maxUnavailable"),
        ("inference.workers.gateway.settings.max_wating=5", "max_wating"),
        ("inference.workers.gateway.settings.worker_target=x:1", "worker_target"),
    ],
)
def test_a_wrong_value_is_refused_and_named(wrong: str, key: str) -> None:
    done = template(f"--set={wrong}")
    assert done.returncode != 0
    assert key in done.stderr


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"postgresql.enabled": "false"}, "externalDatabase.existingSecret"),
        ({"externalDatabase.existingSecret": "mine"}, "set postgresql.enabled to false"),
        ({"image.registry": "registry.example.org/codealign"}, "image.registry"),
        ({"inference.engine": "openai"}, "inference.openai.baseUrl"),
        ({"inference.engine": "openai", "inference.openai.baseUrl": "host/v1"}, "http or https URL"),
        ({"inference.engine": "vllm-grpc"}, "inference.vllmGrpc.address"),
        ({"inference.engine": "vllm-grpc", "inference.vllmGrpc.address": "http://host:50051"}, "give host:port"),
        ({"inference.engine": "vllm"}, "inference.gpu.count"),
        ({"inference.gpu.count": "2"}, "inference.engine"),
        ({"runners.scaling.min": "3"}, "runners.scaling.max"),
        ({"runners.scaling.mode": "keda"}, "no KEDA"),
        ({"tls.mode": "certManager"}, "no cert-manager"),
        ({"trainer.artifactsUrl": "s3://b/a"}, "dataset.versionsUrl"),
        ({"trainer.artifactsUrl": "file:///a", "dataset.versionsUrl": "s3://b/v"}, "s3:// URL"),
        ({"monitoring.serviceMonitors": "enabled"}, "no CRDs of the Prometheus operator"),
        ({"monitoring.rules.enabled": "enabled"}, "monitoring.rules.enabled is enabled"),
    ],
)
def test_values_that_do_not_go_together_say_what_to_set(values: Mapping[str, str], told: str) -> None:
    done = template(*(f"--set={name}={value}" for name, value in values.items()), kinds=())
    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"inference.engine": "openai", "inference.openai.baseUrl": "http://x/v1"}, "does not need workers"),
        ({"inference.workers.scaling.mode": "keda", "inference.workers.gateway.replicas": "2"}, "gateway.replicas"),
        ({"inference.workers.scaling.min": "3"}, "inference.workers.scaling.max"),
        ({"inference.workers.scaling.mode": "keda"}, "no KEDA"),
        ({"inference.workers.dataParallel": "2"}, "need inference.engine vllm"),
        (
            {"inference.workers.pipelineParallel": "2", "inference.engine": "vllm", "inference.gpu.count": "3"},
            "no multiple",
        ),
        (
            {"inference.workers.cache.kind": "modelCache", "modelCache.accessModes": "{ReadWriteOnce}"},
            "modelCache.accessModes",
        ),
    ],
)
def test_values_of_workers_that_do_not_go_together_say_what_to_set(values: Mapping[str, str], told: str) -> None:
    given = {"inference.workers.enabled": "true", **values}
    done = template(*(f"--set={name}={value}" for name, value in given.items()), kinds=())
    assert done.returncode != 0
    assert told in done.stderr


@RENDERED
def test_every_pod_is_one_that_the_profile_restricted_admits(case: str) -> None:
    for pod in rendered(case).pods():
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        for volume in pod.spec.get("volumes", []):
            admitted = {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "ephemeral"}
            assert len(volume.keys() & admitted) == 1, volume
        for container in pod.containers():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "hostPort" not in str(container.get("ports"))


@RENDERED
def test_none_but_the_operator_and_the_training_service_may_ask_the_cluster_and_that_for_little(case: str) -> None:
    chart = rendered(case)
    for pod in chart.pods():
        assert pod.spec["automountServiceAccountToken"] is (pod.component in ("operator", "trainer", "uninstall"))
        assert pod.spec["enableServiceLinks"] is False
    assert not chart.of("ClusterRole") + chart.of("ClusterRoleBinding")
    roles = {role["metadata"]["name"]: role["rules"] for role in chart.of("Role")}
    operator, trainer = chart.pod("operator").name, chart.pod("trainer").name
    assert roles.keys() == {operator, trainer}
    assert [rule["resources"] for rule in roles[trainer]] == [["finetunejobs"]]
    may = {resource: set(rule["verbs"]) for rule in roles[operator] for resource in rule["resources"]}
    assert may.keys() == {
        *("finetunejobs", "finetunejobs/status", "finetunejobs/finalizers"),
        *("jobs", "services", "pods", "events"),
    }
    assert may["pods"] == {"list"}
    assert not any("*" in str(rule) or "secrets" in str(rule) for rules in roles.values() for rule in rules)
    for binding in chart.of("RoleBinding"):
        (subject,) = binding["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": binding["roleRef"]["name"], "namespace": NAMESPACE}
        assert subject["name"] in {account["metadata"]["name"] for account in chart.of("ServiceAccount")}


@RENDERED
def test_the_operators_variables_are_settings_that_it_takes(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chart = rendered(case)
    pod = chart.pod("operator")
    container = server_of(pod)
    for name, value in environment(container).items():
        if name.startswith("CODEALIGN_"):
            assert name.removeprefix("CODEALIGN_OPERATOR_").lower() in OperatorSettings.model_fields
            monkeypatch.setenv(name, value)
    loaded = load(OperatorSettings)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert loaded.namespace == NAMESPACE
    assert ports == {"health": loaded.liveness_port, "metrics": loaded.metrics_port}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "health"}
    gpus = {"gpu-single": 1, "gpu-multi": 8, "workers": 4, "workers-keda": 4}.get(case, 0)
    workers = ("cuda" if gpus else "cpu", max(1, gpus))
    assert (loaded.device, loaded.workers_per_pod) == workers
    beside = environment(server_of(chart.pod("trainer")))
    assert beside["CODEALIGN_TRAINER_BACKEND"] == "kubernetes"
    for name in ("NAMESPACE", "DEVICE", "DATA_DIR", "CACHE_DIR", "DATASET_ADDRESS"):  # one training is one id
        assert beside[f"CODEALIGN_TRAINER_{name}"] == environment(container)[f"CODEALIGN_OPERATOR_{name}"]
    url = "s3://codealign/artifacts" if case in ON_S3 else ""
    assert beside.get("CODEALIGN_TRAINER_ARTIFACTS_URL", "") == loaded.artifacts_url == url
    free = set(schema.settings_of("operator"))
    named = {name.removeprefix("CODEALIGN_OPERATOR_").lower() for name in environment(container)}
    assert named & free == ({"threads"} if "trial" in str(CASES[case]) else set())


@RENDERED
def test_the_pods_that_train_are_what_the_operator_takes_and_see_the_same_files(case: str, tmp_path: Path) -> None:
    chart = rendered(case)
    (template,) = (
        each["data"]["pod-template.yaml"] for each in chart.of("ConfigMap") if "pod-template.yaml" in each["data"]
    )
    path = tmp_path / "template.yaml"
    path.write_text(template)
    read = read_template(path)
    assert cpus(read) >= 1
    made = {pod.component: pod for pod in chart.pods()}
    worker = made["training-worker"]

    def files(component: str) -> dict[str, str]:
        pod = made[component]
        claims = {each["name"]: each.get("persistentVolumeClaim", {}).get("claimName") for each in pod.spec["volumes"]}
        mounts = server_of(pod)["volumeMounts"]
        return {mount["mountPath"]: claims[mount["name"]] for mount in mounts if claims[mount["name"]]}

    assert files("training-worker") == files("operator") == files("trainer")
    assert ("/var/lib/codealign/artifacts" in files("trainer")) is (case not in ON_S3)
    assert server_of(worker)["image"] == server_of(made["operator"])["image"] == server_of(made["trainer"])["image"]
    assert "tls" not in {volume["name"] for volume in worker.spec["volumes"]}
    assert worker.labels.items() >= {"app.kubernetes.io/component": "training-worker"}.items()
    assert {"name": "shm", "mountPath": "/dev/shm"} in server_of(worker)["volumeMounts"]
    annotations = made["operator"].owner["spec"]["template"]["metadata"]["annotations"]
    assert annotations["codealign/pod-template"]  # a changed template restarts the operator


@RENDERED
def test_every_container_says_what_it_takes_and_why_it_ended(case: str) -> None:
    for pod in rendered(case).pods():
        for container in pod.containers():
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
        if pod.owner["kind"] != "Pod":
            assert all(each["terminationMessagePolicy"] == "FallbackToLogsOnError" for each in pod.containers())


@RENDERED
def test_probes_ask_the_health_port_over_grpc_and_a_stop_leaves_time_to_drain(case: str) -> None:
    for component, service in servers(case).items():
        pod = rendered(case).pod(component)
        container = server_of(pod)
        given = environment(container)
        prefix = f"CODEALIGN_{service.upper()}_"
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {name: int(given[f"{prefix}{name}"]) for name in ("PORT", "HEALTH_PORT", "METRICS_PORT")} == {
            "PORT": ports["grpc"],
            "HEALTH_PORT": ports["health"],
            "METRICS_PORT": ports["metrics"],
        }
        for probe, asked in (("livenessProbe", "liveness"), ("readinessProbe", "readiness")):
            assert container[probe]["grpc"] == {"port": ports["health"], "service": asked}
        assert container["startupProbe"]["grpc"]["port"] == ports["health"]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod.spec["terminationGracePeriodSeconds"] >= pause + float(given[f"{prefix}DRAIN_SECONDS"]) + 10


@pytest.mark.parametrize(("case", "component"), [("gpu-multi", "inference"), ("workers-keda", WORKERS)])
def test_a_model_has_an_hour_to_load(case: str, component: str) -> None:
    probe = server_of(rendered(case).pod(component))["startupProbe"]
    assert probe["grpc"]["service"] == "readiness"
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3600


@EVERY_SERVER
def test_every_variable_is_a_setting_that_the_service_takes(
    case: str, component: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = servers(case)[component]
    settings = schema.SETTINGS[service]
    prefix = f"CODEALIGN_{service.upper()}_"
    for container in rendered(case).pod(component).containers():
        given = {name: value for name, value in environment(container).items() if name.startswith("CODEALIGN_")}
        assert {name.removeprefix(prefix).lower() for name in given} <= settings.model_fields.keys()
        if container["name"] == "migrate":
            continue
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        loaded = load(settings)
        assert isinstance(loaded, ServerSettings)
        assert (loaded.host, loaded.allow_plaintext) == ("0.0.0.0", case.startswith("no-tls"))
        assert (loaded.tls_client_ca_file is None) == case.startswith("no-tls")


def test_what_the_chart_sets_cannot_be_set_beside_it() -> None:
    free = {service: set(schema.settings_of(service)) for service in SERVERS.values()}
    # The values have no settings for these, so every variable is set by the chart.
    for case in ("defaults", "cert-manager", "elsewhere", "no-tls-keda"):
        for component, service in servers(case).items():
            prefix = f"CODEALIGN_{service.upper()}_"
            names = environment(server_of(rendered(case).pod(component)))
            given = {name.removeprefix(prefix).lower() for name in names if name.startswith(prefix)}
            assert not given & free[service]


def test_numbers_and_maps_come_through_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "coordinator: {settings: {lease_seconds: 2.5, seeds_in_flight: 1000000}}\n"
        "inference: {settings: {kv_cache_bytes: 4294967296, pack_weights: false, vllm_args: {max_num_seqs: 64}}}\n"
    )
    chart = parsed(template(f"--values={values}").stdout)
    for component in ("coordinator", "inference"):
        for name, value in environment(server_of(chart.pod(component))).items():
            monkeypatch.setenv(name, value)
    coordinator = load(CoordinatorSettings)
    assert (coordinator.lease_seconds, coordinator.seeds_in_flight) == (2.5, 1_000_000)
    inference = load(InferenceSettings)
    assert (inference.kv_cache_bytes, inference.pack_weights) == (2**32, False)
    assert inference.vllm_args == {"max_num_seqs": 64}


@RENDERED
def test_every_volume_is_mounted_and_every_mount_has_a_volume(case: str) -> None:
    chart = rendered(case)
    secrets = {each["metadata"]["name"] for each in chart.of("Secret")}
    secrets |= {each["spec"]["secretName"] for each in chart.of("Certificate")}
    claims = {each["metadata"]["name"] for each in chart.of("PersistentVolumeClaim")} | {"shared", "models"}
    maps = {each["metadata"]["name"] for each in chart.of("ConfigMap")}
    for pod in chart.pods():
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        own = {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for each in pod.containers() for mount in each.get("volumeMounts", [])}
        assert mounted == volumes.keys() | own
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps


def test_with_artifacts_on_s3_no_volume_is_shared_between_nodes() -> None:
    chart = rendered("gpu-multi")
    claims = {claim["metadata"]["name"]: claim["spec"]["accessModes"] for claim in chart.of("PersistentVolumeClaim")}
    assert claims == {f"{FULL}-models": ["ReadWriteOnce"]}
    mounting = [pod.component for pod in chart.pods() if f"{FULL}-models" in str(pod.spec["volumes"])]
    assert mounting == ["inference"]
    for component in ("trainer", "operator", "training-worker", "inference"):
        assert server_of(chart.pod(component))["envFrom"] == [{"secretRef": {"name": "codealign-s3"}}]
    worker = chart.pod("training-worker")
    mounts = {mount["mountPath"]: mount["name"] for mount in server_of(worker)["volumeMounts"]}
    assert {each["name"]: each for each in worker.spec["volumes"]}[mounts["/var/lib/codealign/artifacts"]].get(
        "emptyDir"
    ) == {}
    given = environment(server_of(worker))
    assert given["HF_HOME"].startswith("/var/cache/codealign")  # it downloads models itself
    assert mounts["/var/cache/codealign"] == "cache"
    wide = template(*CASES["gpu-multi"], '--set-json=modelCache.accessModes=["ReadWriteMany"]')
    shared = [pod.component for pod in parsed(wide.stdout).pods() if f"{FULL}-models" in str(pod.spec["volumes"])]
    assert sorted(shared) == ["inference", "operator", "trainer", "training-worker"]


@RENDERED
def test_every_selector_finds_pods(case: str) -> None:
    chart = rendered(case)
    pods = list(chart.pods())
    for service in chart.of("Service"):
        found = [pod for pod in pods if selects(service["spec"]["selector"], pod.labels)]
        assert len(found) == 1, service["metadata"]["name"]
        named = {port["name"] for port in found[0].spec["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for budget in chart.of("PodDisruptionBudget"):
        assert any(selects(budget["spec"]["selector"]["matchLabels"], pod.labels) for pod in pods)
    for pod in pods:
        if pod.owner["kind"] not in ("Pod", "Job"):
            assert selects(pod.owner["spec"]["selector"]["matchLabels"], pod.labels)
            spread = pod.spec["topologySpreadConstraints"]
            assert all(selects(each["labelSelector"]["matchLabels"], pod.labels) for each in spread)
    services = {service["metadata"]["name"]: service["spec"]["selector"] for service in chart.of("Service")}
    for monitor in chart.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert any(selects(wanted, service["metadata"]["labels"]) for service in chart.of("Service"))
    for scaler in chart.of("ScaledObject") + chart.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]["name"]
        assert target in services
        (scaled,) = (pod for pod in pods if pod.name == target)
        assert "replicas" not in scaled.owner["spec"]


@RENDERED
def test_the_addresses_that_services_call_are_services_and_in_their_certificates(case: str) -> None:
    chart = rendered(case)
    ports = {each["metadata"]["name"]: {port["port"] for port in each["spec"]["ports"]} for each in chart.of("Service")}
    called = []
    for component in servers(case):
        given = environment(server_of(chart.pod(component)))
        ends = ("_ADDRESS", "_RUNNER_TARGET", "_WORKER_TARGET")
        called += [value for name, value in given.items() if name.endswith(ends)]
    assert len(called) == 6 + has_workers(case)
    for address in called:
        host, port = address.removeprefix("dns:///").split(":")
        assert int(port) in ports[host]
    for certificate in chart.of("Certificate"):
        if "dnsNames" in certificate["spec"]:
            name = certificate["metadata"]["name"]
            assert {name, f"{name}.{NAMESPACE}.svc", "localhost"} <= set(certificate["spec"]["dnsNames"])
    gateways = {f"{FULL}-runners": "sandbox", f"{FULL}-{WORKERS}": "inference"}
    for scaler in chart.of("ScaledObject"):
        address = scaler["spec"]["triggers"][0]["metadata"]["scalerAddress"]
        assert address == f"{FULL}-{gateways[scaler['metadata']['name']]}.{NAMESPACE}.svc:7400"


@RENDERED
def test_keda_finds_its_certificate_before_it_connects_to_a_gateway(case: str) -> None:
    lists = [each for each in yaml.safe_load_all(text_of(case)) if each and each["kind"] == "List"]
    assert len(lists) == len(rendered(case).of("ScaledObject"))
    for items in (each["items"] for each in lists):
        name = items[-1]["metadata"]["name"]
        # Helm creates the items of a List in order, and KEDA never asks again for an authentication that is missing.
        kinds = ["ScaledObject"] if case.startswith("no-tls") else ["TriggerAuthentication", "ScaledObject"]
        assert [(each["kind"], each["metadata"]["name"]) for each in items] == [(kind, name) for kind in kinds]
        if case != "cert-manager":
            continue
        secret = items[0]["spec"]["secretTargetRef"][0]["name"]
        (scaled,) = (pod for pod in rendered(case).pods() if pod.name == name)
        variables = scaled.spec["containers"][0]["env"]
        assert [each["valueFrom"]["secretKeyRef"] for each in variables if each["name"] == "KEDA_AUTHORITY"] == [
            {"name": secret, "key": "ca.crt"}
        ]


@RENDERED
def test_runners_are_under_gvisor_and_hold_nothing_but_their_certificate(case: str) -> None:
    pod = rendered(case).pod("runners")
    assert pod.spec["runtimeClassName"] == "gvisor"
    mounts = {mount["mountPath"] for each in pod.containers() for mount in each.get("volumeMounts", [])}
    assert mounts == (set() if case.startswith("no-tls") else {"/etc/codealign/tls"})
    (service,) = (each for each in rendered(case).of("Service") if each["metadata"]["name"] == pod.name)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert not any("exec" in str(pod.spec["containers"][0].get(probe)) for probe in ("livenessProbe", "readinessProbe"))


@RENDERED
def test_gpus_come_with_their_toleration(case: str) -> None:
    counts = {"gpu-single": (1, 1, 0), "gpu-multi": (4, 8, 0), "workers": (4, 4, 0), "workers-keda": (2, 4, 0)}.get(
        case, (0, 0, 0)
    )
    generating = WORKERS if has_workers(case) else "inference"
    for component, count in zip((generating, "training-worker", "trainer"), counts, strict=True):
        pod = rendered(case).pod(component)
        container = server_of(pod)
        assert container["resources"]["limits"].get("nvidia.com/gpu", "0") == str(count)
        tolerated = [each["key"] for each in pod.spec.get("tolerations", [])]
        spot = ["cloud.google.com/gke-spot"] if component == WORKERS and case in ON_S3 else []
        assert tolerated == (["nvidia.com/gpu", *spot] if count else [])
        assert component == "trainer" or {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    given = environment(server_of(rendered(case).pod(generating)))
    copies = 2 if case == "workers" else 1
    assert given.get("CODEALIGN_INFERENCE_VLLM_TENSOR_PARALLEL", "0") == str(counts[0] // copies)


def test_names_do_not_meet_those_of_another_release() -> None:
    first, second = (
        {(each["kind"], each["metadata"]["name"]) for each in parsed(helm("template", name, ".").stdout).documents}
        for name in ("one", "two")
    )
    assert not first & second


def test_an_image_with_a_tag_is_taken_as_it_is() -> None:
    digest = "elsewhere.example:5000/x@sha256:" + "0" * 64
    done = template("--set=image.registry=r.example:5000/", f"--set=trainer.image={digest}")
    chart = parsed(done.stdout)
    assert server_of(chart.pod("trainer"))["image"] == digest
    version = (CHART.parents[1] / "VERSION").read_text().strip()
    assert server_of(chart.pod("dataset"))["image"] == f"r.example:5000/codealign-dataset:{version}"


def test_what_is_kept_after_an_uninstallation_is_what_the_values_say() -> None:
    def kept(case: str) -> set[str]:
        marked = "helm.sh/resource-policy"
        found = (each["metadata"] for each in rendered(case).documents)
        return {each["name"] for each in found if each.get("annotations", {}).get(marked) == "keep"}

    assert kept("trial") == set()
    assert kept("defaults") == {f"{FULL}-artifacts", f"{FULL}-postgresql"}
    policy = rendered("trial").pod("postgresql").owner["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Delete"}


@RENDERED
def test_kubernetes_knows_every_field(case: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in rendered(case).documents:
        if not document["apiVersion"].startswith(("keda.sh/", "cert-manager.io/", "monitoring.coreos.com/")):
            kubernetes_validate.validate(document, "1.34", strict=True)


def test_kubernetes_knows_every_field_of_the_resource_and_has_a_status_for_it() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    (path,) = (CHART / "crds").iterdir()
    (definition,) = parsed(path.read_text()).documents
    kubernetes_validate.validate(definition, "1.34", strict=True)
    (version,) = definition["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    schema_properties = version["schema"]["openAPIV3Schema"]["properties"]
    for column in version["additionalPrinterColumns"]:
        part, _, name = column["jsonPath"].lstrip(".").partition(".")
        assert part == "metadata" or name in schema_properties[part]["properties"]


def test_no_template_prints_a_missing_value() -> None:
    for case in CASES:
        assert not re.search(r"<no value>|%!", text_of(case))


def test_traces_go_to_the_configured_collector_from_services_only() -> None:
    chart = rendered("traces")
    for pod in chart.pods():
        given = {entry["name"]: entry.get("value") for entry in server_of(pod).get("env") or []}
        traced = {name: value for name, value in given.items() if name.startswith("OTEL_")}
        if pod.component in (*SERVICES, WORKERS):
            assert traced == {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.observability:14317",
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.25",
            }
        else:
            assert not traced, pod.name
    collector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    for policy in chart.of("NetworkPolicy"):
        open_to_it = [rule for rule in policy["spec"].get("egress", []) if collector in rule.get("to", [])]
        of_service = policy["metadata"]["name"].removeprefix(f"{FULL}-") in SERVICES
        assert open_to_it == (
            [{"ports": [{"port": 14317, "protocol": "TCP"}], "to": [collector]}] if of_service else []
        )


@pytest.mark.parametrize("endpoint", ["otel:4317", "http://otel", "grpc://otel:4317", "http://otel:4317/v1/traces"])
def test_an_endpoint_that_no_exporter_understands_is_refused(endpoint: str) -> None:
    refused = template(f"--set=tracing.endpoint={endpoint}")
    assert refused.returncode != 0
    assert "tracing" in refused.stderr
    assert "endpoint" in refused.stderr
