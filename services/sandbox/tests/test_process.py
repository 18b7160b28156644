"""Isolation `process`: for debugging, announced loudly, and recorded in every result."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

from .conftest import Gateway, identifies_verdicts, name_of, running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("process"), isolation="process") as started:
        started.wait_ready()
        yield started


def test_every_result_and_the_runner_say_so(gateway: Gateway) -> None:
    result = gateway.run("def f(x): return x + 1", "assert f(1) == 2")
    assert (name_of(result), result.isolation) == ("PASSED", pb.ISOLATION_PROCESS)
    (runner,) = gateway.stub.GetRunner(pb.GetRunnerRequest()).runners
    assert (runner.backend, runner.isolation, runner.state) == (
        "process",
        pb.ISOLATION_PROCESS,
        pb.RUNNER_STATE_READY,
    )
    assert identifies_verdicts(runner), runner
    assert result.image_digest == runner.image_digest
    assert "kernel" in {check.name for check in runner.isolation_checks if not check.passed}


def test_it_is_said_at_the_start_and_when_it_is_ready(gateway: Gateway) -> None:
    log = gateway.log.read_text()
    assert '"event": "isolation_is_off"' in log
    assert '"event": "runner_without_isolation"' in log
    assert "WITHOUT gVisor" in next(line for line in log.splitlines() if '"ready": true' in line)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("import sys; sys.exit(0)", "EXITED_EARLY"),
        ("while True: pass", "TIMED_OUT"),
        ("open('f', 'wb').write(bytes(80 << 20))", "DISK_LIMIT"),
        ("import os, time\nif os.fork() == 0: time.sleep(300)", "PASSED"),
    ],
)
def test_verdicts_are_those_of_a_sandbox(gateway: Gateway, code: str, verdict: str) -> None:
    assert name_of(gateway.run(code, "assert True", wall_seconds=1)) == verdict
