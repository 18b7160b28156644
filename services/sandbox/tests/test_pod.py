"""Runner pods inside real gVisor, and a gateway that finds them by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from codealign.api.runner.v1.runner_pb2_grpc import RunnerServiceStub
from codealign.api.sandbox.v1 import sandbox_pb2 as pb

from .conftest import CACHE, Gateway, identifies_verdicts, name_of, request, running
from .pods import Pod, certificates

pytestmark = pytest.mark.gvisor


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


Start = Callable[..., Pod]


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Start]:
    started: list[Pod] = []

    def start(**settings: Any) -> Pod:
        started.append(Pod(tmp_path / f"pod-{len(started)}", CACHE, **settings))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    with ExitStack() as stack:

        def start(port: int, **settings: str) -> Gateway:
            target = {"backend": "grpc", "runner_target": f"localhost:{port}", "resolve_seconds": "0.2"}
            folder = tmp_path / "gateway"
            folder.mkdir()
            return stack.enter_context(running(folder, **{**target, **settings}))

        yield start


def test_programs_run_in_a_pod_behind_mutual_tls_whose_key_they_cannot_see(
    pod: Start, gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    files = certificates(tmp_path / "tls", "runners.example")
    runner = pod(
        tls=files,
        tls_cert_file="/var/tmp/tls/runner.pem",
        tls_key_file="/var/tmp/tls/runner.key",
        tls_client_ca_file="/var/tmp/tls/ca.pem",
        image_digest="sha256:0123",  # in an image this comes from a file
    )
    there = gateway(
        runner.port,
        runner_tls_ca_file=str(files / "ca.pem"),
        runner_tls_cert_file=str(files / "gateway.pem"),
        runner_tls_key_file=str(files / "gateway.key"),
        runner_tls_name="runners.example",
    )
    there.wait_ready()
    (described,) = there.stub.GetRunner(pb.GetRunnerRequest()).runners
    assert (described.backend, described.isolation) == ("grpc", pb.ISOLATION_GVISOR)
    assert all(check.passed for check in described.isolation_checks)
    assert identifies_verdicts(described), described
    result = there.run("def f(x): return x + 1", "assert f(1) == 2")
    assert (name_of(result), result.runner, result.isolation) == ("PASSED", runner.name, pb.ISOLATION_GVISOR)
    look = "import os\nseen = [f for _, _, files in os.walk('/var/tmp/tls') for f in files]\n"
    look += "fds = os.listdir('/proc/self/fd')\nenv = [k for k in os.environ if 'CODEALIGN' in k or 'TLS' in k]"
    result = there.run(look, "assert seen == []\nassert env == []\nassert len(fds) <= 5")
    assert name_of(result) == "PASSED", result
    assert name_of(there.run("while True: pass", "assert True", wall_seconds=0.5)) == "TIMED_OUT"
    # Neither the runner's own certificate nor a person's is accepted.
    for caller in ("runner", "client"):
        code, details = _attach(runner.port, files, caller)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "use a certificate of sandbox" in details


def _attach(port: int, files: Path, caller: str) -> tuple[grpc.StatusCode, str]:
    pem = ((files / name).read_bytes() for name in ("ca.pem", f"{caller}.key", f"{caller}.pem"))
    options = [("grpc.ssl_target_name_override", "runners.example")]
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(*pem), options=options) as channel:
        waiting = threading.Event()
        nothing: Any = iter(lambda: waiting.wait(10), True)  # sent while the answer is awaited
        call = RunnerServiceStub(channel).Attach(nothing)
        try:
            next(call)
        except grpc.RpcError:
            waiting.set()
        return call.code(), call.details()


def test_work_waits_for_the_first_pod_and_outlives_its_end(pod: Start, gateway: Callable[..., Gateway]) -> None:
    first = pod()
    port = first.port
    there = gateway(port)
    there.wait_ready()
    results: list[pb.Result] = []
    sleeper = "import time; time.sleep(2)"
    call = threading.Thread(target=lambda: results.append(there.run(sleeper, "assert True")))
    call.start()
    _until(lambda: there.capacity().busy == 1)
    first.kill()
    # A missing runner is no reason to refuse.
    _until(lambda: there.capacity().queued == 1)
    waiting = there.stub.Execute.future(request("x = 1"), timeout=60)
    second = pod(port=port)
    assert name_of(waiting.result().result) == "COMPLETED"
    call.join()
    assert [(name_of(result), result.runner) for result in results] == [("PASSED", second.name)]


def test_a_pod_that_is_told_to_stop_finishes_what_it_runs(pod: Start, gateway: Callable[..., Gateway]) -> None:
    runner = pod()
    there = gateway(runner.port)
    there.wait_ready()
    call = there.stub.Execute.future(request("import time; time.sleep(1.5)", "assert True"), timeout=60)
    _until(lambda: there.capacity().busy == 1)
    runner.terminate()
    _until(lambda: there.capacity().slots == 0)
    late = there.stub.Execute.future(request("x = 1"), timeout=60)
    assert name_of(call.result().result) == "PASSED"
    assert runner.process.wait(30) == 0
    assert not late.done(), "it waits for another"
    late.cancel()


def test_what_a_stopping_pod_cannot_finish_goes_back_and_is_no_fault(
    pod: Start, gateway: Callable[..., Gateway]
) -> None:
    runner = pod(drain_seconds="0.5")
    port = runner.port
    there = gateway(port, attempts="1")
    there.wait_ready()
    call = there.stub.Execute.future(request("import time; time.sleep(4)", "assert True"), timeout=60)
    _until(lambda: there.capacity().busy == 1)
    runner.terminate()
    assert runner.process.wait(30) == 0
    after = pod(port=port)
    result = call.result().result
    assert (name_of(result), result.runner) == ("PASSED", after.name)


def test_a_pod_outside_gvisor_is_refused_with_the_wall(tmp_path: Path, gateway: Callable[..., Gateway]) -> None:
    import os
    import subprocess
    import sys

    endpoint = tmp_path / "endpoint.json"
    environment = {**os.environ, "CODEALIGN_RUNNER_ENDPOINT_FILE": str(endpoint)}
    with subprocess.Popen([sys.executable, "-m", "codealign.runner.pod.main"], env=environment) as process:
        try:
            _until(endpoint.exists)
            import json

            there = gateway(json.loads(endpoint.read_text())["port"])
            _until(lambda: len(there.stub.GetRunner(pb.GetRunnerRequest()).runners) == 1)
            with pytest.raises(grpc.RpcError) as caught:
                there.run("x = 1")
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "kernel" in str(caught.value)
        finally:
            process.terminate()
