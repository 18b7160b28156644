"""The gateway itself: evidence, refusals, streams, and runners or gateways that die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

from .conftest import CACHE, Gateway, name_of, request, running

pytestmark = pytest.mark.gvisor

WALLS = {
    "kernel", "network", "loopback", "processes", "files", "privileges", "memory", "process limit", "disk", "death",
}  # fmt: skip


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_wall_holds_and_says_what_was_tried(gateway: Gateway) -> None:
    (runner,) = gateway.stub.GetRunner(pb.GetRunnerRequest()).runners
    assert {wall.name for wall in runner.walls} == WALLS
    assert all(wall.holds and wall.evidence for wall in runner.walls)
    assert runner.state == pb.RUNNER_STATE_READY
    assert runner.isolation == pb.ISOLATION_GVISOR
    assert runner.backend == "runsc"
    assert runner.platform in ("systrap", "ptrace")
    assert int(runner.gvisor_version) >= 20240729


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


def test_a_stopping_gateway_finishes_what_runs(tmp_path: Path) -> None:
    with running(tmp_path, slots="1") as own:
        own.wait_ready()
        call = own.stub.Execute.future(request("import time; time.sleep(1.5)", "assert True"))
        _until(lambda: own.capacity().busy == 1)
        own.process.send_signal(signal.SIGTERM)
        assert name_of(call.result(timeout=20).result) == "PASSED"
        assert own.process.wait(20) == 0


def test_a_killed_gateway_leaves_no_sandbox_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    with running(tmp_path, slots="1") as own:
        own.wait_ready()
        children = own.children()
        # Other tests' gateways may run beside this one: its own folders are those that its children name.
        commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children).decode()
        folders = {folder for folder in (CACHE / "run").iterdir() if folder.name in commands}
        assert folders
        own.process.kill()
        own.process.wait()
        _until(lambda: not any(_runs(pid) for pid in children))
        _until(lambda: _processes_of(folders) == [])
    # The killed one's endpoint file is still in its folder.
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
    """Commands that name a folder whose lock nobody holds any more."""
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
