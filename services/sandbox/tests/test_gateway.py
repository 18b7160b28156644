"""The gateway itself: evidence, refusals, streams, and runners or gateways that die."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from externalscaler import externalscaler_pb2, externalscaler_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub

from .conftest import CACHE, Gateway, identifies_verdicts, name_of, request, running

pytestmark = pytest.mark.gvisor

CHECKS = {
    "kernel", "network", "loopback", "ipc", "processes", "files", "settings", "privileges", "environment",
    "memory", "process limit", "disk", "output", "cpu", "death",
}  # fmt: skip


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_wall_holds_and_says_what_was_tried(gateway: Gateway) -> None:
    (runner,) = gateway.stub.GetRunner(pb.GetRunnerRequest()).runners
    assert {check.name for check in runner.isolation_checks} == CHECKS
    assert all(check.passed and check.evidence for check in runner.isolation_checks)
    assert runner.state == pb.RUNNER_STATE_READY
    assert runner.isolation == pb.ISOLATION_GVISOR
    assert runner.backend == "runsc"
    assert runner.platform in ("systrap", "ptrace")
    assert int(runner.gvisor_version) >= 20240729
    assert identifies_verdicts(runner), runner


def test_an_unknown_runner_is_not_found(gateway: Gateway) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        gateway.stub.GetRunner(pb.GetRunnerRequest(name="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_wrong_request_names_its_fields(gateway: Gateway) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        gateway.run("", wall_seconds=1000)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert {violation.field for violation in bad.field_violations} == {"program.code", "limits.wall_seconds"}


def test_a_stream_answers_each_request_and_refuses_the_bad_one_alone(gateway: Gateway) -> None:
    def requests() -> Iterator[pb.ExecuteStreamRequest]:
        yield pb.ExecuteStreamRequest(request=request("import time; time.sleep(1)", request_id="slow"))
        yield pb.ExecuteStreamRequest(request=request("x = 1", request_id="bad", wall_seconds=-1))
        for index in range(20):
            yield pb.ExecuteStreamRequest(request=request("x = 1", "assert x == 1", request_id=str(index)))

    results = [response.result for response in gateway.stub.ExecuteStream(requests(), timeout=60)]
    verdicts = {result.request_id: name_of(result) for result in results}
    assert verdicts == {"slow": "COMPLETED", "bad": "REFUSED", **{str(index): "PASSED" for index in range(20)}}
    # In the order in which they finish, not in that of the requests.
    assert results[0].request_id != "slow"
    assert [result.request_id for result in results].index("slow") > 2


def test_capacity_counts_results_by_verdict(gateway: Gateway) -> None:
    before = gateway.capacity().verdicts["COMPLETED"]
    gateway.run("x = 1")
    after = gateway.capacity()
    assert after.verdicts["COMPLETED"] == before + 1
    assert (after.runners, after.queued, after.queue_limit) == (1, 0, 1000)


def test_jobs_of_a_killed_runner_run_on_the_next_one(gateway: Gateway) -> None:
    results: list[pb.Result] = []
    calls = [
        threading.Thread(target=lambda: results.append(gateway.run("import time; time.sleep(1)", "assert True")))
        for _ in range(3)
    ]
    for call in calls:
        call.start()
    _until(lambda: gateway.capacity().busy >= 2)
    for pid in gateway.children():
        os.kill(pid, signal.SIGKILL)
    for call in calls:
        call.join()
    assert [name_of(result) for result in results] == ["PASSED"] * 3


def test_a_job_whose_runners_keep_dying_is_an_infrastructure_fault(tmp_path: Path) -> None:
    with running(tmp_path, attempts="2", slots="1") as own:
        own.wait_ready()
        results: list[pb.Result] = []
        call = threading.Thread(target=lambda: results.append(own.run("import time; time.sleep(20)", wall_seconds=30)))
        call.start()
        for _ in range(2):
            _until(lambda: own.capacity().busy == 1)
            for pid in own.children():
                os.kill(pid, signal.SIGKILL)
            _until(lambda: own.capacity().busy == 0)
        call.join()
        assert name_of(results[0]) == "INFRASTRUCTURE"
        assert "2 attempts" in results[0].detail
        own.wait_ready()
        assert name_of(own.run("x = 1", "assert x")) == "PASSED"


def test_a_full_queue_is_refused_with_a_delay(tmp_path: Path) -> None:
    with running(tmp_path, queue_limit="1", slots="1") as own:
        own.wait_ready()
        calls = [own.stub.Execute.future(request("import time; time.sleep(30)", wall_seconds=40))]
        _until(lambda: own.capacity().busy == 1)
        calls.append(own.stub.Execute.future(request("x = 1")))
        _until(lambda: own.capacity().queued == 1)
        with pytest.raises(grpc.RpcError) as caught:
            own.run("x = 1")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
        assert status.details[0].Unpack(retry)
        for call in calls:
            call.cancel()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with one slot."""
    with running(tmp_path_factory.mktemp("single"), slots="1") as own:
        own.wait_ready()
        yield own


def test_what_could_not_start_in_time_is_not_started_and_says_so(single: Gateway) -> None:
    running_call = single.stub.Execute.future(request("import time; time.sleep(30)", wall_seconds=40))
    _until(lambda: single.capacity().busy == 1)
    with pytest.raises(grpc.RpcError) as caught:
        single.stub.Execute(request("x = 1"), timeout=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert single.capacity().queued == 0
    running_call.cancel()
    assert name_of(single.run("x = 1", "assert x")) == "PASSED"
    assert "COMPLETED" not in single.capacity().verdicts


def test_one_callers_many_do_not_hold_up_anothers_single_request(single: Gateway) -> None:
    with single.open_channel() as other:
        greedy = [single.stub.Execute.future(request("import time; time.sleep(0.3)")) for _ in range(60)]
        _until(lambda: single.capacity().queued >= 40)
        assert name_of(SandboxServiceStub(other).Execute(request("x = 1"), timeout=60).result) == "COMPLETED"
        assert single.capacity().queued > 20
        for call in greedy:
            call.cancel()
        _until(lambda: (single.capacity().queued, single.capacity().busy) == (0, 0))


def test_a_stopping_gateway_finishes_what_runs(single: Gateway) -> None:
    """This must be the last test of this gateway: it stops it."""
    call = single.stub.Execute.future(request("import time; time.sleep(1.5)", "assert True"))
    _until(lambda: single.capacity().busy == 1)
    single.process.send_signal(signal.SIGTERM)
    assert name_of(call.result(timeout=20).result) == "PASSED"
    assert single.process.wait(20) == 0


def test_an_autoscaler_is_told_what_is_wanted_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running(tmp_path, slots="2", idle_seconds="0", drain_seconds="250") as own:
        own.wait_ready()
        assert own.channel is not None
        scaler = externalscaler_pb2_grpc.ExternalScalerStub(own.channel)
        ref = externalscaler_pb2.ScaledObjectRef(name="runners", namespace="default")
        (spec,) = scaler.GetMetricSpec(ref).metricSpecs
        assert spec.targetSizeFloat == 2.0
        pushed = scaler.StreamIsActive(ref)
        assert not next(pushed).result
        call = own.stub.Execute.future(request("import time; time.sleep(30)", wall_seconds=40))
        assert next(pushed).result
        metrics = scaler.GetMetrics(
            externalscaler_pb2.GetMetricsRequest(scaledObjectRef=ref, metricName=spec.metricName)
        )
        assert [value.metricValueFloat for value in metrics.metricValues] == [1.0]
        call.cancel()
        assert not next(pushed).result
        own.process.send_signal(signal.SIGTERM)
        assert list(pushed) == []
        assert own.process.wait(60) == 0


def test_metrics_have_prometheus_names(gateway: Gateway) -> None:
    gateway.run("x = 1", "assert x")
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port('metrics_port')}/metrics") as answer:
        text = answer.read().decode()
    values = dict(re.findall(r"^(codealign_sandbox_\w+(?:{[^}]*})?) (\S+)$", text, re.MULTILINE))
    assert float(values['codealign_sandbox_results_total{profile="default",verdict="PASSED"}']) >= 1
    assert float(values['codealign_sandbox_runner_starts_total{outcome="ready"}']) >= 1
    assert float(values["codealign_sandbox_queue_seconds_count"]) >= 1
    assert float(values["codealign_sandbox_slots"]) == 2
    assert float(values['codealign_sandbox_runners{state="ready"}']) >= 1
    assert float(values["codealign_sandbox_oldest_queued_timestamp_seconds"]) == 0
    assert {"codealign_sandbox_queued", "codealign_sandbox_busy"} <= values.keys()
    assert {"codealign_sandbox_faults_total", "codealign_sandbox_reruns_total"} <= values.keys()


def test_a_killed_gateway_leaves_no_sandbox_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    with running(tmp_path, slots="1") as own:
        own.wait_ready()
        children = own.children()
        # Gateways of other tests may run at the same time: this one's folders are those that its children name.
        commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children).decode()
        folders = {folder for folder in (CACHE / "run").iterdir() if folder.name in commands}
        assert folders
        own.process.kill()
        own.process.wait()
        _until(lambda: not any(_runs(pid) for pid in children))
        _until(lambda: _processes_of(folders) == [])
    # The killed gateway's endpoint file is still in its folder.
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with running(fresh, slots="1"):
        left = [folder for folder in folders if folder.is_dir()]
    assert left == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _processes_of(folders: set[Path]) -> list[str]:
    """Return commands that name a folder whose lock nobody holds any more."""
    import fcntl

    found = []
    for folder in folders:
        with (folder / "lock").open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = command.read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if folder.name in text:
                found.append(text)
    return found


@pytest.mark.parametrize(
    ("limit", "again"),
    [pytest.param(3, False, id="its clock stops meanwhile"), pytest.param(1, True, id="for three times its limit")],
)
def test_a_program_without_a_processor_has_its_time(sound: Gateway, limit: float, again: bool) -> None:
    code = "def f():\n    import time\n    end = time.process_time() + 2\n    while time.process_time() < end: pass\n"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(sound.run, code, "f()\nassert True", wall_seconds=limit)
        time.sleep(0.2)
        stopped = sound.tree()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(4.5)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        result = waiting.result()
    assert name_of(result) == "PASSED", result
    assert ("run alone" in result.detail) is again
    assert again or result.wall_seconds > limit
