"""Runners and inference workers scale from zero with their queues and back to zero, and nothing is lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from tests.cluster.conftest import Report
from tests.cluster.kube import CommandError, kubectl, until
from tests.cluster.release import Release

BURST = 120
CALLERS = 12
"""Callers of inference with one sample each, so that three workers with SAMPLES_PER_WORKER are wanted."""
SAMPLES_PER_WORKER = 4
RUNNERS = {"runners.scaling.mode": "keda", "runners.scaling.min": "0", "runners.scaling.max": "4"}
WORKERS = {
    "inference.workers.scaling.mode": "keda",
    "inference.workers.scaling.max": "3",
    "inference.workers.scaling.samplesPerWorker": str(SAMPLES_PER_WORKER),
    "inference.workers.scaling.pollingSeconds": "2",
    "inference.workers.scaling.cooldownSeconds": "10",
}


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


def _ready(release: Release, component: str = "runners") -> int:
    return sum(
        condition["status"] == "True"
        for pod in release.pods(component)
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
    with report.step("`helm upgrade` to scaling by KEDA, until no runner is left"):
        demo.helm("upgrade", changed=RUNNERS)
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


def _text(inference: InferenceServiceStub, number: int) -> str:
    """Return the completion of one sample, however long it takes until a worker is there."""
    asked = inf.GenerateRequest(
        prompt=f"# Task {number}\ndef double(x):\n",
        samples=[inf.Sample(seed=number)],
        sampling=inf.SamplingParameters(temperature=0.7, max_tokens=100),
    )
    while True:
        try:
            (answer,) = inference.Generate(asked, timeout=300, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise
            time.sleep(1)
        else:
            return str(answer.completion.text)


@pytest.mark.timeout(900)
def test_workers_follow_the_samples_from_none_to_one_to_three_and_back(demo: Release, report: Report) -> None:
    if demo.values.get("runners.scaling.mode") != "keda":
        pytest.skip("this cluster has no KEDA")
    with report.step("`helm upgrade` to scaling of inference workers by KEDA, until none is left"):
        demo.helm("upgrade", changed=WORKERS)
        until("no worker is left", lambda: not demo.pods("inference-workers"), 240)
    inference = InferenceServiceStub(demo.channel("inference"))
    enough = threading.Event()

    def texts(number: int) -> set[str]:
        found = {_text(inference, number)}
        while not enough.is_set():
            found.add(_text(inference, number))
        return found

    with (
        report.step(f"one caller of inference, starting from zero workers; then {CALLERS}; then none") as seen,
        ThreadPoolExecutor(CALLERS) as pool,
    ):
        try:
            calls = [pool.submit(texts, 0)]
            seconds = until("a worker is ready", lambda: _ready(demo, "inference-workers") == 1, 240)
            seen(f"the first worker after {seconds:.0f} s")
            calls += [pool.submit(texts, number) for number in range(1, CALLERS)]
            seconds = until("three are ready", lambda: _ready(demo, "inference-workers") == 3, 240)
            seen(f"three after {seconds:.0f} s more")
        finally:
            enough.set()
        found = [call.result() for call in calls]
        seconds = until("none is left", lambda: not demo.pods("inference-workers"), 240)
        seen(f"none after {seconds:.0f} s")
    assert [len(each) for each in found] == [1] * CALLERS, "a sample has one text, whichever worker generates it"
