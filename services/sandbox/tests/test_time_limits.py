"""Time limits on a machine whose processors are busy, in real gVisor."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb

from .conftest import Gateway, name_of, running

pytestmark = pytest.mark.gvisor

WORK = "def work(n):\n    total = 0\n    for i in range(n):\n        total += i * i % 7\n    return total\n"
TEST = "assert work(5_000_000) > 0"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a runner of one slot, which is the default."""
    with running(tmp_path_factory.mktemp("single"), slots="1") as gateway:
        gateway.wait_ready()
        yield gateway


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Keep most of every processor busy."""
    command = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def counted(result: pb.Result) -> float:
    return result.wall_seconds - result.stalled_seconds


def test_a_program_within_its_limits_passes_whoever_else_works(single: Gateway) -> None:
    alone = single.run(WORK, TEST, wall_seconds=60, cpu_seconds=60)
    assert name_of(alone) == "PASSED"
    # Processors that share caches and execution units with busy ones need up to twice the time for the same work.
    limit = max(counted(alone), 0.3) * 4
    with busy_machine(), ThreadPoolExecutor(3) as callers:
        calls = [callers.submit(single.run, WORK, TEST, wall_seconds=limit, cpu_seconds=limit) for _ in range(3)]
        results = [call.result() for call in calls]
    assert [name_of(result) for result in results] == ["PASSED"] * 3, results


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(60)"])
def test_what_has_no_end_is_ended_whoever_else_works(single: Gateway, code: str) -> None:
    with busy_machine():
        result = single.run(code, "assert True", wall_seconds=1, cpu_seconds=1)
    assert name_of(result) == "TIMED_OUT"
    assert counted(result) >= 0.9 or result.cpu_seconds >= 0.9 or result.wall_seconds >= 3, result
