"""Runners scale from zero with the queue and back to zero, and no program is lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from tests.cluster.conftest import Report
from tests.cluster.kube import CommandError, kubectl, until
from tests.cluster.release import Release

BURST = 120


def _program(seconds: float) -> pb.ExecuteRequest:
    code = f"import time\ntime.sleep({seconds})\nx = 1"
    limits = pb.Limits(wall_seconds=30, cpu_seconds=30)
    return pb.ExecuteRequest(program=pb.Program(code=code, tests="assert x == 1"), limits=limits)


def _verdict(sandbox: SandboxServiceStub, seconds: float) -> str:
    while True:
        try:
            answer = sandbox.Execute(_program(seconds), timeout=300, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise
            time.sleep(1)
        else:
            return pb.Verdict.Name(answer.result.verdict)


def _ready(release: Release) -> int:
    return sum(
        condition["status"] == "True"
        for pod in release.pods("runners")
        for condition in pod["status"].get("conditions", [])
        if condition["type"] == "Ready"
    )


def test_what_a_deleted_pod_cannot_finish_runs_on_the_next_one(demo: Release) -> None:
    sandbox = SandboxServiceStub(demo.channel("sandbox"))
    demo.wait_ready()
    (runner,) = (pod["metadata"]["name"] for pod in demo.pods("runners"))
    with ThreadPoolExecutor(2) as pool:
        short, long = pool.submit(_verdict, sandbox, 1.0), pool.submit(_verdict, sandbox, 20.0)
        until("one is running", lambda: sandbox.GetCapacity(pb.GetCapacityRequest(), timeout=30).busy > 0, 60, 0.1)
        demo.kubectl("delete", "pod", runner, "--wait=false")
        assert (short.result(), long.result()) == ("VERDICT_PASSED", "VERDICT_PASSED")


@pytest.mark.timeout(900)
def test_runners_follow_the_queue_from_none_to_four_and_back(demo: Release, report: Report) -> None:
    try:
        kubectl("get", "crd", "scaledobjects.keda.sh")
    except CommandError:
        pytest.skip("this cluster has no KEDA")
    scaling = {"runners.scaling.mode": "keda", "runners.scaling.min": "0", "runners.scaling.max": "4"}
    with report.step("`helm upgrade` to scaling by KEDA, until no runner is left"):
        demo.helm("upgrade", changed=scaling)
        until("no runner is left", lambda: not demo.pods("runners"), 180)
    sandbox = SandboxServiceStub(demo.channel("sandbox"))
    began = time.monotonic()
    rows: list[tuple[object, ...]] = [("second", "waiting", "running", "runner pods", "of these ready")]
    done = threading.Event()
    most = 0

    def watch() -> None:
        nonlocal most
        while not done.wait(2):
            try:
                load = sandbox.GetCapacity(pb.GetCapacityRequest(), timeout=10)
            except grpc.RpcError:
                continue
            pods = len(demo.pods("runners"))
            most = max(most, pods)
            row = (load.queued, load.busy, pods, _ready(demo))
            if rows[-1][1:] != row:
                rows.append((round(time.monotonic() - began), *row))

    with report.step(
        f"{BURST} programs of one second each, starting from zero pods; then one at a time while pods are removed"
    ) as seen:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        with ThreadPoolExecutor(BURST) as pool:
            verdicts: list[Future[str]] = [pool.submit(_verdict, sandbox, 1.0) for _ in range(BURST)]
            until("the first verdict", lambda: any(each.done() for each in verdicts), 180, every=0.1)
            first = time.monotonic() - began
            seen(f"first verdict after {first:.1f} s")
            found = [each.result() for each in verdicts]
        trickle = 0
        while len(demo.pods("runners")) > 1 and trickle < 60:
            found.append(_verdict(sandbox, 1.0))
            trickle += 1
        until("no runner is left", lambda: not demo.pods("runners"), 240)
        done.set()
        watcher.join()
        rows.append((round(time.monotonic() - began), 0, 0, 0, 0))
        seen(f"{len(found)} verdicts, all PASSED; at most {most} pods")
    report.tables["Runners by demand"] = (
        f"The first program had its verdict {first:.1f} s after it was sent, from zero pods.",
        rows,
    )
    assert set(found) == {"VERDICT_PASSED"}
    assert most == 4
    assert trickle > 0
