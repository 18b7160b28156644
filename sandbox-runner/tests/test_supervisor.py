"""Runners that must not work, and the choice of fork servers."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import probes, soundness
from codealign.runner.configuration import PROGRAM_VARIABLES, Configuration, program_environment
from codealign.runner.execution import Program
from codealign.runner.profiles import DEFAULT, FULL, LIGHT, PACKAGED
from codealign.runner.session import ProtocolError, Session
from codealign.runner.soundness import Soundness, Unsound
from codealign.runner.supervisor import Supervisor, installed_packages


def test_outside_gvisor_it_starts_nothing_and_names_the_wall() -> None:
    configuration = Configuration("outside", 2, "runsc")
    command = [sys.executable, "-m", "codealign.runner.stdio", configuration.to_json()]
    ended = subprocess.run(command, input=b"", capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    (size,) = struct.unpack(">I", ended.stdout[:4])
    hello = runner_pb2.AttachResponse.FromString(ended.stdout[4 : 4 + size]).hello.runner
    assert (hello.state, hello.isolation) == (pb.RUNNER_STATE_REFUSED, pb.ISOLATION_UNSPECIFIED)
    assert [(check.name, check.passed) for check in hello.isolation_checks] == [("kernel", False)]


def test_a_runner_that_the_gateway_starts_imports_no_grpc() -> None:
    look = "import codealign.runner.stdio, sys; print([name for name in sys.modules if name in ('grpc', 'asyncio')])"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, check=True).stdout.strip() == b"[]"


def test_a_runner_that_refuses_takes_no_job() -> None:
    supervisor = Supervisor(Configuration("outside", 1, "runsc"))
    supervisor.description = pb.Runner(state=pb.RUNNER_STATE_REFUSED, slots=1)
    session = Session(supervisor, lambda frame: None)
    with pytest.raises(ProtocolError):
        session.take(runner_pb2.AttachRequest(job=runner_pb2.Job(id=1)))


def test_a_configuration_travels_on_a_command_line() -> None:
    configuration = Configuration("x", 2, "runsc", hidden=("/root",), isolation="process")
    assert Configuration.from_json(configuration.to_json()) == configuration
    with pytest.raises(ValueError, match="invalid runner configuration"):
        Configuration.from_json('{"colour": 1}')


def test_programs_inherit_nothing_that_is_not_listed() -> None:
    environment = program_environment({"PATH": "/usr/bin", "SECRET": "1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert environment["PATH"] == "/usr/bin"
    assert set(environment) <= PROGRAM_VARIABLES


@pytest.fixture(autouse=True)
def _steady_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the mounts constant: outside a sandbox they change."""
    monkeypatch.setattr(soundness, "_mounts", lambda: 1)


def test_a_mount_that_came_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Soundness(spare_descriptors=0)
    monkeypatch.setattr(soundness, "_mounts", lambda: 2)
    with pytest.raises(Unsound, match="2 mounts, expected 1"):
        box.check(running=0)


def test_an_unchanged_box_is_sound() -> None:
    Soundness(spare_descriptors=0).check(running=0)


def test_a_process_that_stays_is_noticed() -> None:
    box = Soundness(spare_descriptors=0)
    with subprocess.Popen(["sleep", "60"]) as stray:
        try:
            with pytest.raises(Unsound, match=str(stray.pid)):
                box.check(running=0)
        finally:
            stray.kill()
    box.check(running=0)


def test_what_dies_within_a_moment_is_waited_for() -> None:
    box = Soundness(spare_descriptors=0)
    stray = subprocess.Popen(["sleep", "0.2"])
    threading.Thread(target=stray.wait).start()
    box.check(running=0)


def test_descriptors_that_stay_are_noticed_unless_executions_hold_them() -> None:
    box = Soundness(spare_descriptors=0)
    left = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    try:
        box.check(running=1)
        with pytest.raises(Unsound, match="descriptors"):
            box.check(running=0)
    finally:
        for descriptor in left:
            os.close(descriptor)


@pytest.mark.parametrize("probe", [probes.LOOK_AROUND, probes.PLANT])
def test_a_comment_alone_decides_which_fork_server_is_probed(probe: str) -> None:
    assert DEFAULT.server_of(probe) == LIGHT
    assert DEFAULT.server_of(f"# {' '.join(DEFAULT.more)}\n{probe}") == FULL
    assert DEFAULT.server_of(f"# {' '.join(DEFAULT.packages)}\n{probe}") == PACKAGED


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("import numpy as np", True),
        ("import math, numpy", True),
        ("from numpy.linalg import det", True),
        ("__import__('numpy')", True),
        ("import \\\n    numpy", True),
        ("exec('import numpy')", True),
        ("import numpyro", False),
        ("numpy_like = 1", False),
        ("import json, random", False),
        ("", False),
    ],
)
def test_a_program_that_names_a_package_wants_packages(source: str, wanted: bool) -> None:
    assert (DEFAULT.server_of("x = 1", source) == PACKAGED) is wanted
    assert DEFAULT.with_packages(()).server_of(source) != PACKAGED


def test_packages_are_those_in_the_runners_own_directory(tmp_path: Path) -> None:
    (tmp_path / "google").mkdir()
    (tmp_path / "scipy-1.2.3.dist-info").mkdir()
    assert installed_packages(DEFAULT, str(tmp_path)) == {}
    (tmp_path / "numpy").mkdir()
    assert installed_packages(DEFAULT, str(tmp_path)) == {"numpy": ""}
    (tmp_path / "numpy-2.4.6.dist-info").mkdir()
    assert installed_packages(DEFAULT, str(tmp_path)) == {"numpy": "2.4.6"}


def test_without_its_packages_a_profile_is_otherwise_the_same() -> None:
    bare = DEFAULT.with_packages(())
    assert (bare.packages, bare.packaged) == ((), ())
    assert dataclasses.replace(bare, packages=DEFAULT.packages, packaged=DEFAULT.packaged) == DEFAULT
    assert DEFAULT.with_packages(DEFAULT.packages) == DEFAULT


def test_a_programs_own_modules_are_part_of_its_text() -> None:
    files = {"a/b.py": b"import numpy", "data.json": b"json", "bad.py": b"\xff"}
    assert Program("code", "tests", files=files).sources == ["code", "tests", "import numpy", "\ufffd"]


def test_a_module_of_a_program_may_need_the_programs_file() -> None:
    assert Program("def f(): pass", "assert f() is None", files={"a.py": b"from solution import f"}).needs_file
    assert not Program("def f(): pass", "assert f() is None", files={"a.txt": b"from solution import f"}).needs_file
