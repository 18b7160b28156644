"""The faults: each does what it says and is undone afterwards."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import disk, faults
from tests.chaos.proxy import Proxy
from tests.chaos.run_chaos import _Store, differences

_SECONDS = 10.0


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of an echo server."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(4096):
                    connection.sendall(data)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as started:
        yield started


def _connected(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=_SECONDS)
    connection.sendall(b"hello")
    assert connection.recv(100) == b"hello"
    return connection


def _is_reset(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"more")
        return connection.recv(100) == b""
    except OSError as error:
        return error.errno in (errno.ECONNRESET, errno.EPIPE)


def test_dropped_connections_are_reset_and_new_ones_go_through(proxy: Proxy) -> None:
    with _connected(proxy) as one, _connected(proxy) as two:
        assert proxy.connections == 4
        proxy.drop()
        assert _is_reset(one)
        assert _is_reset(two)
    with _connected(proxy):
        pass


def test_a_service_that_refuses_takes_no_connection_until_it_does(proxy: Proxy) -> None:
    with _connected(proxy) as old:
        proxy.refuse(True)
        assert _is_reset(old)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=_SECONDS) as new:
        assert _is_reset(new)
    proxy.refuse(False)
    with _connected(proxy):
        pass


def test_held_bytes_arrive_once_they_are_let_through(proxy: Proxy) -> None:
    with _connected(proxy) as connection:
        proxy.hold(True)
        connection.sendall(b"late")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        proxy.hold(False)
        connection.settimeout(_SECONDS)
        assert connection.recv(100) == b"late"


def test_a_slow_connection_delays_what_it_carries(proxy: Proxy) -> None:
    with _connected(proxy) as connection:
        proxy.slow(0.3)
        connection.sendall(b"slow")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        connection.settimeout(_SECONDS)
        assert connection.recv(100) == b"slow"
        proxy.slow(0)


def test_while_nobody_listens_behind_it_connections_are_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Proxy(port) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=_SECONDS) as connection:
        assert _is_reset(connection)


_APPEND = (
    "import os, sys\nwith open(sys.argv[1], 'ab', buffering=0) as file:\n  for _ in sys.stdin:\n    try:\n"
    "      file.write(bytes(4096)); print('ok', flush=True)\n"
    "    except OSError as error:\n      print(error.errno, flush=True)\n"
)


def test_a_full_disk_lets_no_file_grow_until_it_is_freed(tmp_path: Path) -> None:
    with disk.small(tmp_path / "data", 4 * 2**20) as small:
        command = [sys.executable, "-c", _APPEND, str(tmp_path / "data" / "file")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None

            def written() -> str:
                assert writer.stdin is not None
                assert writer.stdout is not None
                writer.stdin.write("\n")
                writer.stdin.flush()
                return writer.stdout.readline().strip()

            assert written() == "ok"
            small.fill(writer.pid)
            assert written() in (str(errno.ENOSPC), str(errno.EFBIG))
            small.free(writer.pid)
            assert written() == "ok"
    if small.mounted:
        assert not any((tmp_path / "data").iterdir()), "the disk is gone with its files"


class _Service:
    """A service that records what is done to it."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name, self.pid = log, name, 1

    def kill(self) -> None:
        self._log.append(f"kill {self._name}")
        self.pid = 0

    def start(self) -> None:
        self._log.append(f"start {self._name}")
        self.pid = 2

    def signal(self, number: signal.Signals) -> None:
        self._log.append(f"{number.name} {self._name}")


class _Noting:
    """A proxy or disk that records its calls."""

    mounted, way = True, "noted"

    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name = log, name

    def __getattr__(self, method: str) -> Any:
        return lambda *arguments: self._log.append(f"{self._name}.{method}{arguments}")


def _stage(log: list[str]) -> faults.Stage:
    class Services:
        def __init__(self) -> None:
            self.services = {name: _Service(log, name) for name in faults.SERVICES}

    proxies: Any = {name: _Noting(log, name) for name in ("dataset", "inference", "sandbox")}
    no_disk: Any = _Noting(log, "disk")
    no_scene: Any = Services()
    server: Any = _Noting(log, "postgres")

    def sleep(seconds: float) -> None:
        log.append(f"sleep {seconds:g}")

    return faults.Stage(no_scene, proxies, no_disk, 20.0, server, sleep)


def _drawn(stage: faults.Stage, seed: int, count: int) -> list[faults.Fault]:
    return list(itertools.islice(faults.drawn(stage, random.Random(seed)), count))


def test_the_same_seed_draws_the_same_faults() -> None:
    drawn = []
    for seed in (1, 1, 2):
        drawn.append([fault.name for fault in _drawn(_stage([]), seed, 100)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_hundred_faults_are_of_every_kind_and_strike_every_service() -> None:
    names = [fault.name for fault in _drawn(_stage([]), 0, 100)]
    kinds = ("SIGKILL", "SIGSTOP", "reset", "no byte reaches", "refuses", "disk is full", "slower", "is dead")
    for kind in (*kinds, "PostgreSQL is stopped"):
        assert any(kind in name for name in names), kind
    for service in faults.SERVICES:
        assert any(name.startswith(f"SIGKILL to {service}") for name in names), service
        assert any(f"SIGSTOP to {service} for 20 s" in name for name in names), service


def test_every_fault_gives_back_what_it_took() -> None:
    log: list[str] = []
    stage = _stage(log)
    for fault in _drawn(stage, 5, 100):
        log.clear()
        fault.run()
        assert not stage.down
        assert log, "it did nothing"
        for begin, end in (
            ("kill ", "start "),
            ("SIGSTOP", "SIGCONT"),
            ("disk.fill", "disk.free"),
            (".stop", ".start"),
        ):
            assert any(begin in line for line in log) == any(end in line for line in log), log
        for method in ("hold", "refuse"):
            told = [line for line in log if f".{method}(" in line]
            assert [line.endswith("(True,)") for line in told] in ([], [True, False]), log
        if any(".slow(" in line for line in log):
            assert log[-1] == "inference.slow(0,)"


def test_a_fault_that_is_interrupted_is_ended_all_the_same() -> None:
    log: list[str] = []
    stage = _stage(log)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    stage = replace(stage, sleep=interrupted)
    fault = next(fault for fault in _drawn(stage, 1, 100) if fault.name.startswith("SIGSTOP"))
    with pytest.raises(KeyboardInterrupt):
        fault.run()
    assert [line.split()[0] for line in log] == ["SIGSTOP", "SIGCONT"]


def test_what_differs_between_two_stores_is_told() -> None:
    calm = _Store({"v/a": "1", "v/b": "2"}, {"v": ["x", "y"]}, {("KIND_EXAMPLE", ""): 2})
    assert differences(calm, calm) == []
    other = _Store(
        {"v/a": "3", "v/c": "2"}, {"v": ["x", "x"]}, {("KIND_EXAMPLE", ""): 3, ("KIND_VERDICT", "PASSED"): 1}
    )
    assert differences(other, calm) == [
        "published file v/a differs",
        "published file v/b is missing",
        "published file v/c should not be there",
        "version v has row x more than once",
        "version v lacks row y",
        "KIND_EXAMPLE: 3 records, 2 undisturbed",
        "KIND_VERDICT PASSED: 1 records, 0 undisturbed",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_root_gets_a_disk_of_its_own(tmp_path: Path) -> None:
    with disk.small(tmp_path / "data", 2**20) as small:
        assert small.mounted
        assert os.statvfs(tmp_path / "data").f_blocks * os.statvfs(tmp_path / "data").f_frsize == 2**20
