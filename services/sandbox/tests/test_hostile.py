"""What malicious programs do to the gateway itself. For the programs by verdict see `tests/hostile`."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import pytest

from .conftest import Gateway, name_of, request

pytestmark = pytest.mark.gvisor

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
    os._exit(0)
os.wait()
"""


def test_a_daemon_that_holds_the_pipes_delays_nothing(sound: Gateway) -> None:
    started = time.monotonic()
    assert name_of(sound.run(DAEMON, "assert True")) == "PASSED"
    assert time.monotonic() - started < 3


def test_a_daemon_dies_at_the_time_limit(sound: Gateway) -> None:
    result = sound.run(DAEMON + "time.sleep(300)", "assert True", wall_seconds=0.5)
    assert name_of(result) == "TIMED_OUT"
    assert result.wall_seconds < 3


def test_a_cancelled_call_frees_its_slot(sound: Gateway) -> None:
    slots = sound.capacity().slots
    calls = [sound.stub.Execute.future(request("import time; time.sleep(50)", wall_seconds=55)) for _ in range(slots)]
    _until(lambda: sound.capacity().busy == slots)
    for call in calls:
        call.cancel()
    _until(lambda: sound.capacity().busy == 0)


def test_a_passed_deadline_frees_its_slot(sound: Gateway) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        sound.stub.Execute(request("import time; time.sleep(50)", wall_seconds=55), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    _until(lambda: sound.capacity().busy == 0)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
