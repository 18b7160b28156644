"""Access control: certificates and NetworkPolicies."""

from __future__ import annotations

import json

import grpc
import pytest

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1.dataset_pb2_grpc import DatasetServiceStub
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from tests.cluster.conftest import Report
from tests.cluster.kube import credentials, kubectl, secret
from tests.cluster.release import SERVICES, Release, as_json


def _code(release: Release, component: str, caller: str | None) -> grpc.StatusCode:
    """Return the status code for a caller with a component's certificate, or with none."""
    grpc.channel_ready_future(release.channel(component)).result(60)
    files = secret(release.namespace, f"{release.full}-{caller or 'client'}-tls")
    with grpc.secure_channel(release.address(component), credentials(files, own=caller is not None)) as channel:
        try:
            if component == "dataset":
                DatasetServiceStub(channel).Append(ds.AppendRequest(), timeout=30)
            elif component == "sandbox":
                SandboxServiceStub(channel).GetCapacity(sb.GetCapacityRequest(), timeout=30)
            else:
                InferenceServiceStub(channel).UnloadModel(inf.UnloadModelRequest(name="none"), timeout=30)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("component", "caller", "code"),
    [
        ("dataset", None, grpc.StatusCode.UNAVAILABLE),
        ("dataset", "client", grpc.StatusCode.OK),
        ("dataset", "coordinator", grpc.StatusCode.OK),
        ("dataset", "inference", grpc.StatusCode.PERMISSION_DENIED),
        ("dataset", "runners", grpc.StatusCode.PERMISSION_DENIED),
        ("sandbox", "dataset", grpc.StatusCode.PERMISSION_DENIED),
        ("inference", "coordinator", grpc.StatusCode.NOT_FOUND),  # it unloads models to make room for a tuned one
        ("inference", "dataset", grpc.StatusCode.PERMISSION_DENIED),
        ("inference", "client", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_certificate_opens_what_its_service_calls(
    demo: Release, component: str, caller: str | None, code: grpc.StatusCode
) -> None:
    assert _code(demo, component, caller) == code


PROBE = """
import json, os, socket
from concurrent.futures import ThreadPoolExecutor

def answers(address):
    host, port = address.rsplit(":", 1)
    try:
        if port == "53":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
                asked.settimeout(4)
                asked.sendto(bytes.fromhex("1234010000010000000000000000010001"), (host, 53))
                asked.recv(512)
        else:
            socket.create_connection((host, int(port)), timeout=4).close()
    except OSError:
        return False
    return True

targets = json.loads(os.environ["TARGETS"])
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(dict(zip(targets, pool.map(answers, targets.values())))))
"""
OPEN = {
    "dataset": {"postgresql"},
    "coordinator": {"dataset", "inference", "sandbox", "trainer"},
    "sandbox": {"runners"},
    "inference": {"inference worker"},
    "inference-workers": set(),
    "trainer": {"dataset", "API server"},
    "operator": {"dataset", "API server"},
    "training-worker": set(),
    "postgresql": set(),
    "runners": set(),
    "test": {"sandbox"},
    "console": {"dataset", "coordinator", "trainer"},
}
"""Targets that a component's pod can reach besides DNS."""
NO_DNS = ("runners", "postgresql")


def _probe(release: Release, component: str, targets: dict[str, str]) -> dict[str, object]:
    labels = {"app.kubernetes.io/name": "codealign", "app.kubernetes.io/instance": release.name}
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"probe-{component}",
            "labels": {**labels, "app.kubernetes.io/component": component} if component != "stranger" else {},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": release.pods("sandbox")[0]["spec"]["containers"][0]["image"],
                    "command": ["python3", "-c", PROBE],
                    "env": [{"name": "TARGETS", "value": json.dumps(targets)}],
                    "securityContext": restricted,
                }
            ],
        },
    }


def test_the_network_opens_what_is_needed_and_nothing_else(demo: Release, other: Release, report: Report) -> None:
    service = {each["metadata"]["name"]: each["spec"]["clusterIP"] for each in demo.get("services")}
    targets = {name: f"{service[f'{demo.full}-{name}']}:7400" for name in SERVICES}
    targets["postgresql"] = f"{demo.pods('postgresql')[0]['status']['podIP']}:5432"
    targets["runners"] = f"{demo.pods('runners')[0]['status']['podIP']}:7410"
    targets["inference worker"] = f"{demo.pods('inference-workers')[0]['status']['podIP']}:7400"
    targets["API server"] = kubectl("get", "service", "kubernetes", "--output=jsonpath={.spec.clusterIP}:443")
    targets["node"] = f"{demo.pods('runners')[0]['status']['hostIP']}:10250"
    targets["metadata"] = "169.254.169.254:80"
    targets["other release"] = (
        f"{other.get('services', '--selector=app.kubernetes.io/component=dataset')[0]['spec']['clusterIP']}:7400"
    )
    targets["DNS"] = kubectl(
        "get", "service", "kube-dns", "-n", "kube-system", "--output=jsonpath={.spec.clusterIP}:53"
    )
    with report.step("network access, tried from a pod of each kind") as seen:
        sources = [*OPEN, "stranger"]
        demo.kubectl("apply", "--filename=-", given=as_json(*(_probe(demo, source, targets) for source in sources)))
        try:
            for source in sources:
                demo.kubectl(
                    "wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/probe-{source}", "--timeout=120s"
                )
            found = {source: json.loads(demo.kubectl("logs", f"probe-{source}")) for source in sources}
        finally:
            demo.kubectl("delete", "pod", *(f"probe-{source}" for source in sources), "--wait=false")
        seen(f"{len(sources)} × {len(targets)}")
    rows: list[tuple[object, ...]] = [("from", *targets)]
    rows += [(source, *("open" if found[source][name] else "·" for name in targets)) for source in sources]
    report.tables["The network"] = ("Tried from pods with the labels of each component; the stranger has none.", rows)
    for source, wanted in OPEN.items():
        reached = {name for name, answers in found[source].items() if answers}
        assert reached == wanted | (set() if source in NO_DNS else {"DNS"}), source
    closed = {*SERVICES, "postgresql", "runners", "inference worker"}
    assert not {name for name, answers in found["stranger"].items() if answers} & closed
