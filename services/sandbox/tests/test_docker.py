"""Backend `docker`: containers under gVisor's runtime. `eval "$(tests/docker.sh)"` prepares a Docker for it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.errors import ConfigurationError
from codealign.sandbox.runners import docker

from .conftest import CACHE, Gateway, identifies_verdicts, name_of, running

IMAGE = os.environ.get("CODEALIGN_SANDBOX_IMAGE", "codealign-sandbox-runner:test")
PREPARE = 'eval "$(tests/docker.sh)" prepares one'


def _why_not() -> str:
    try:
        docker.prepare(CACHE / "look", 1, 60.0, IMAGE, "runsc")
    except ConfigurationError as error:
        return f"no Docker for the test ({error}); {PREPARE}"
    return ""


@pytest.fixture(scope="session")
def docker_is_there() -> None:
    if reason := _why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def gateway(docker_is_there: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("docker"), backend="docker", image=IMAGE) as started:
        started.wait_ready()
        yield started


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _containers(*filters: str) -> list[str]:
    arguments = ["docker", "ps", "--all", "--format", "{{.Names}}", *(f"--filter={each}" for each in filters)]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.gvisor
def test_every_wall_holds_for_an_unprivileged_supervisor(gateway: Gateway) -> None:
    (runner,) = gateway.stub.GetRunner(pb.GetRunnerRequest()).runners
    assert (runner.backend, runner.isolation, runner.state) == ("docker", pb.ISOLATION_GVISOR, pb.RUNNER_STATE_READY)
    assert len(runner.isolation_checks) >= 15
    assert all(check.passed and check.evidence for check in runner.isolation_checks)
    assert runner.platform in ("systrap", "ptrace", "kvm")
    assert runner.image_digest.startswith("sha256:")
    assert identifies_verdicts(runner), runner


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("x = 1", "PASSED"),
        ("import sys; sys.exit(0)", "EXITED_EARLY"),
        ("while True: pass", "TIMED_OUT"),
        ("import os\nwhile True: os.fork()", "PROCESS_LIMIT"),
        ("x = bytearray(1 << 40)", "OUT_OF_MEMORY"),
        ("open('f', 'wb').write(bytes(80 << 20))", "DISK_LIMIT"),
        ("while True: print('x' * 65536)", "OUTPUT_LIMIT"),
        ("import socket; socket.create_connection(('1.1.1.1', 53), 2)", "RAISED"),
    ],
)
def test_verdicts_are_those_of_every_backend(gateway: Gateway, code: str, verdict: str) -> None:
    result = gateway.run(code, "assert True", wall_seconds=2)
    assert (name_of(result), result.isolation) == (verdict, pb.ISOLATION_GVISOR), result
    assert name_of(gateway.run("def f(x): return x + 1", "assert f(1) == 2")) == "PASSED"


@pytest.mark.gvisor
def test_a_killed_gateways_containers_go_with_it(docker_is_there: None, tmp_path: Path) -> None:
    with running(tmp_path, backend="docker", image=IMAGE, slots="1") as own:
        own.wait_ready()
        (runner,) = own.stub.GetRunner(pb.GetRunnerRequest()).runners
        assert _containers(f"name={runner.name}") == [runner.name]
        own.process.kill()
        own.process.wait()
        _until(lambda: _containers(f"name={runner.name}") == [])


@pytest.mark.gvisor
def test_what_a_killed_gateway_left_is_removed_and_nothing_else(docker_is_there: None, tmp_path: Path) -> None:
    run_dir = tmp_path / "run-docker"
    labels = {
        "left": f"--label=codealign.run-dir={docker._owner(run_dir)}",
        "other": "--label=codealign.run-dir=elsewhere:/x",
    }
    names = {whose: f"codealign-test-{os.getpid()}-{number}" for number, whose in enumerate(labels)}
    for whose, label in labels.items():
        create = ["docker", "create", f"--name={names[whose]}", "--network=none", label, IMAGE]
        subprocess.run(create, check=True, capture_output=True)
    try:
        docker.clean(run_dir)
        assert _containers(f"name={names['left']}") == []
        assert _containers(f"name={names['other']}") != []
    finally:
        subprocess.run(["docker", "rm", "--force", *names.values()], check=False, capture_output=True)


async def test_a_container_without_gvisor_refuses_work_whatever_its_runtime_is_called(docker_is_there: None) -> None:
    backend = docker.prepare(CACHE / "runc", 1, 60.0, IMAGE, "runsc")
    runner = await dataclasses.replace(backend, runtime=docker.Runtime("runc", "systrap", "")).start()
    assert runner.description.state == pb.RUNNER_STATE_REFUSED
    assert [(check.name, check.passed) for check in runner.description.isolation_checks] == [("kernel", False)]
    await runner.close()


def test_a_runtime_that_is_not_gvisor_is_named(docker_is_there: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"DOCKER_RUNTIME: runtime 'runc' is /.*no release in the output"):
        docker.prepare(tmp_path, 1, 60.0, IMAGE, "runc")


STAND_IN = """\
#!/bin/sh
case "$1 $2" in
    "version "*) [ -z "$NO_DAEMON" ] || { echo "Cannot connect to the Docker daemon" >&2; exit 1; }; echo 28 ;;
    "info "*) echo "$RUNTIMES" ;;
    "image "*) [ -z "$NO_IMAGE" ] || { echo "Error: No such image" >&2; exit 1; }; echo sha256:12 ;;
esac
"""
RUNSC = '{"runc": {"path": "runc"}, "runsc": {"path": "/none", "runtimeArgs": ["--debug", "--platform", "kvm"]}}'


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NO_DAEMON": "1"}, r"daemon does not answer \(Cannot connect.*DOCKER_HOST"),
        ({"RUNTIMES": '{"runc": {"path": "runc"}}'}, "no runtime 'runsc' .available: runc.* Register gVisor"),
        ({"RUNTIMES": RUNSC, "NO_IMAGE": "1"}, "no image some:1 .*docker build --file sandbox-runner/Dockerfile"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    stand_in = tmp_path / "docker"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        docker.prepare(tmp_path, 1, 60.0, "some:1", "runsc")


def test_without_docker_the_way_without_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"Install Docker, or leave CODEALIGN_SANDBOX_BACKEND unset"):
        docker.prepare(tmp_path, 1, 60.0, "some:1", "runsc")


def test_the_platform_is_read_from_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "docker"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("RUNTIMES", RUNSC)
    found = docker.prepare(tmp_path, 1, 60.0, "some:1", "runsc")
    assert (found.runtime.platform, found.runtime.release, found.image_id) == ("kvm", "", "sha256:12")
