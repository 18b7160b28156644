"""A runner in a real cluster, and a gateway outside of it.

Opt-in, because it makes a namespace in whatever cluster KUBECONFIG names: CODEALIGN_TEST_CLUSTER=1, with kubectl on
PATH, a RuntimeClass `gvisor`, pod addresses that this machine reaches, and the runner's image
(CODEALIGN_SANDBOX_IMAGE) on the cluster's nodes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from services.sandbox.tests.conftest import Gateway, name_of, request, running

IMAGE = os.environ.get("CODEALIGN_SANDBOX_IMAGE", "codealign-sandbox-runner:test")
MANIFEST = Path(__file__).parent / "runner.yaml"
NAMESPACE = f"codealign-test-{os.getpid()}"


def _why_not() -> str:
    if not os.environ.get("CODEALIGN_TEST_CLUSTER"):
        return "makes a namespace in the cluster of KUBECONFIG: set CODEALIGN_TEST_CLUSTER=1"
    if shutil.which("kubectl") is None:
        return "no kubectl on PATH"
    found = subprocess.run(["kubectl", "get", "runtimeclass", "gvisor"], capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else f"no RuntimeClass gvisor: {found.stderr.strip()[-200:]}"


def kubectl(*arguments: str, given: str | None = None) -> str:
    command = ["kubectl", f"--namespace={NAMESPACE}", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pods() -> list[str]:
    listed = json.loads(kubectl("get", "pods", "--output=json"))["items"]
    return [pod["metadata"]["name"] for pod in listed if "deletionTimestamp" not in pod["metadata"]]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if reason := _why_not():
        pytest.skip(reason)
    text = MANIFEST.read_text().replace("NAMESPACE", NAMESPACE).replace("IMAGE", IMAGE)
    kubectl("apply", "--filename=-", given=text)
    try:
        kubectl("rollout", "status", "deployment/runner", "--timeout=90s")
        yield kubectl("get", "service", "runner", "--output=jsonpath={.spec.clusterIP}") + ":7410"
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def gateway(address: str, tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, backend="grpc", runner_target=address, resolve_seconds="1", attempts="1") as started:
        started.wait_ready()
        yield started


def test_a_restricted_pod_proves_every_wall_and_gives_right_verdicts(gateway: Gateway) -> None:
    (runner,) = gateway.stub.GetRunner(pb.GetRunnerRequest()).runners
    assert (runner.backend, runner.isolation, runner.name) == ("grpc", pb.ISOLATION_GVISOR, pods()[0])
    assert all(wall.holds for wall in runner.walls)
    assert runner.image_digest.startswith("sha256:")
    for code, verdict in (
        ("x = 1", "PASSED"),
        ("import sys; sys.exit(0)", "EXITED_EARLY"),
        ("while True: pass", "TIMED_OUT"),
        ("import os\nwhile True: os.fork()", "PROCESS_LIMIT"),
        ("x = bytearray(1 << 40)", "OUT_OF_MEMORY"),
        ("import os\nassert not [k for k in os.environ if 'KUBERNETES' in k or 'CODEALIGN' in k]", "PASSED"),
    ):
        assert name_of(gateway.run(code, "assert True", wall_seconds=2)) == verdict


def test_a_deleted_pod_finishes_what_it_can(gateway: Gateway) -> None:
    call = gateway.stub.Execute.future(request("import time; time.sleep(1.5)", "assert True"), timeout=60)
    until(lambda: gateway.capacity().busy == 1)
    (pod,) = pods()
    kubectl("delete", "pod", pod, "--wait=false")
    result = call.result().result
    assert (name_of(result), result.runner) == ("PASSED", pod)


def test_what_a_deleted_pod_cannot_finish_runs_on_the_next_one(gateway: Gateway) -> None:
    (pod,) = pods()
    call = gateway.stub.Execute.future(request("import time; time.sleep(8)", "assert True"), timeout=120)
    until(lambda: gateway.capacity().busy == 1)
    kubectl("delete", "pod", pod, "--wait=false")
    result = call.result().result
    # One attempt is all that it has: given back is no failure.
    assert (name_of(result), result.runner) == ("PASSED", pods()[0])
    assert result.runner != pod
