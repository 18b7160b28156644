"""Proves a runner's isolation by trying to break it, through the path that every program takes."""

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import execution, probes, verdict
from codealign.runner.evidence import Evidence
from codealign.runner.execution import Program
from codealign.runner.profiles import MIB, Limits
from codealign.runner.slot import Slot

_OUTSIDE = (("1.1.1.1", 53), ("8.8.8.8", 443), ("169.254.169.254", 80), ("10.0.0.1", 443), ("192.168.0.1", 80))
_READ_ONLY = ("/", "/usr", "/usr/bin", "/etc", "/opt/codealign", "/dev", "/var", "/run", "/proc")
_LIMITS = Limits(
    wall_seconds=15.0,
    cpu_seconds=10.0,
    memory_bytes=128 * MIB,
    processes=8,
    disk_bytes=4 * MIB,
    output_bytes=256 * 1024,
    output_kill_bytes=1 * MIB,
)


def _run(slot: Slot, program: Program, cancelled: threading.Event | None = None, **changed: Any) -> Evidence:
    limits = dataclasses.replace(_LIMITS, **changed)
    return execution.execute(slot, program, limits, cancelled or threading.Event())


def _verdict(seen: Evidence, program: Program) -> str:
    judged = verdict.judge(seen, verdict.Asked(program.code, program.tests, None, _LIMITS))
    return pb.Verdict.Name(judged.verdict).removeprefix("VERDICT_")


@contextlib.contextmanager
def _planted(slots: Sequence[Slot], token: str) -> Iterator[None]:
    """Another execution's files: it still runs where there is a second slot, and has just ended where there is not."""
    if len(slots) == 1:
        _run(slots[0], Program(probes.PLANT.format(token=token, seconds=0)))
        yield
        return
    cancelled = threading.Event()
    program = Program(probes.PLANT.format(token=token, seconds=60))
    planter = threading.Thread(target=_run, args=(slots[1], program, cancelled))
    planter.start()
    try:
        yield
    finally:
        cancelled.set()
        planter.join()


@contextlib.contextmanager
def _listening() -> Iterator[tuple[int, str]]:
    """Listeners of the supervisor that no program may reach: a loopback port and an abstract socket's name."""
    name = secrets.token_hex(8)
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(f"\0{name}")
        unix.listen()
        port = tcp.getsockname()[1]
        # Else a refusal would prove nothing.
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        yield port, name


def _look_around(slots: Sequence[Slot], hidden: Sequence[str]) -> dict[str, Any]:
    token = f"probe-{secrets.token_hex(8)}"
    with _planted(slots, token), _listening() as (port, unix):
        arguments = {
            "outside": _OUTSIDE,
            "port": port,
            "unix": unix,
            "token": token,
            "hidden": list(hidden),
            "read_only": _READ_ONLY,
        }
        seen = _run(slots[0], Program(probes.LOOK_AROUND, stdin=json.dumps(arguments).encode()))
    try:
        found = json.loads(seen.stdout)
    except ValueError:
        raise RuntimeError(f"the probe gave no answer: {seen.stderr.decode('utf-8', 'replace')[-300:]}") from None
    assert isinstance(found, dict)
    return found


def _kernel(seen: dict[str, Any]) -> pb.Wall:
    log = " ".join(seen["log"])
    holds = "gvisor" in f"{log} {seen['release']}".lower()
    return pb.Wall(name="kernel", holds=holds, evidence=f"release {seen['release']}; first line of its log: {log!r}")


def _network(seen: dict[str, Any]) -> pb.Wall:
    attempts: dict[str, str] = seen["network"]
    evidence = ", ".join(f"{address}: {result}" for address, result in attempts.items())
    return pb.Wall(name="network", holds="CONNECTED" not in attempts.values(), evidence=f"connect to {evidence}")


def _loopback(seen: dict[str, Any]) -> pb.Wall:
    attempts: dict[str, str] = seen["loopback"]
    evidence = f"the runner listens; connect by TCP: {attempts['tcp']}, by abstract socket: {attempts['unix']}"
    return pb.Wall(name="loopback", holds="CONNECTED" not in attempts.values(), evidence=evidence)


def _processes(seen: dict[str, Any]) -> pb.Wall:
    holds = seen["pid"] == 1 and seen["pids"] == [1] and not seen["signalled"]
    evidence = f"it is process {seen['pid']}, sees {seen['pids']}, could signal {seen['signalled']}"
    return pb.Wall(name="processes", holds=holds, evidence=evidence)


def _files(seen: dict[str, Any]) -> pb.Wall:
    holds = not (seen["found"] or seen["visible"] or seen["writable"])
    evidence = (
        f"of another execution: {seen['found'] or 'nothing'}; of the host: {seen['visible'] or 'nothing'}; "
        f"writable outside its box: {seen['writable'] or 'nothing'}"
    )
    return pb.Wall(name="files", holds=holds, evidence=evidence)


def _privileges(seen: dict[str, Any]) -> pb.Wall:
    capabilities = {name: value for name, value in seen["capabilities"].items() if int(value, 16)}
    allowed = [name for name, result in seen["denied"].items() if result == 0]
    expected = {0, 1, 2}
    extra = sum(1 for number in seen["descriptors"] if number not in expected)
    # Two descriptors beside the standard ones: the witness's channel, and the listing itself.
    holds = not capabilities and not allowed and seen["no_new_privs"] == 1 and seen["uid"] != 0 and extra <= 2
    evidence = (
        f"uid {seen['uid']}, capabilities {capabilities or 'none'}, no_new_privs {seen['no_new_privs']}, "
        f"granted of {', '.join(seen['denied'])}: {allowed or 'none'}; {extra} further descriptors"
    )
    return pb.Wall(name="privileges", holds=holds, evidence=evidence)


def _memory(slots: Sequence[Slot]) -> pb.Wall:
    results = []
    for code in (probes.ONE_LARGE_BLOCK, probes.MANY_SMALL_BLOCKS):
        program = Program(code)
        results.append(_verdict(_run(slots[0], program, memory_bytes=64 * MIB), program))
    evidence = f"limit 64 MiB; one block of 1 TiB: {results[0]}; 4 processes of 24 MiB each: {results[1]}"
    return pb.Wall(name="memory", holds=results == ["OUT_OF_MEMORY"] * 2, evidence=evidence)


def _process_limit(slots: Sequence[Slot]) -> pb.Wall:
    program = Program(probes.FORKS)
    seen = _run(slots[0], program)
    result = _verdict(seen, program)
    words = seen.stdout.split()
    started = int(words[0]) if words else -1
    # Refused by the kernel, or, where slots share a user, killed by the supervisor.
    holds = 0 < started <= _LIMITS.processes or result == "PROCESS_LIMIT"
    evidence = f"limit {_LIMITS.processes}; forks that succeeded: {started}; {result}"
    return pb.Wall(name="process limit", holds=holds, evidence=evidence)


def _disk(slots: Sequence[Slot]) -> pb.Wall:
    program = Program(probes.FILL_DISK)
    result = _verdict(_run(slots[0], program), program)
    return pb.Wall(name="disk", holds=result == "DISK_LIMIT", evidence=f"limit 4 MiB; writing 16 MiB: {result}")


def _death(slots: Sequence[Slot]) -> pb.Wall:
    before = {name for name in os.listdir("/proc") if name.isdigit()}
    program = Program(probes.DAEMON)
    result = _verdict(_run(slots[0], program, wall_seconds=0.4), program)
    after = {name for name in os.listdir("/proc") if name.isdigit()} - before
    evidence = f"a daemon that ignores SIGTERM, at the time limit: {result}; processes left: {len(after)}"
    return pb.Wall(name="death", holds=result == "TIMED_OUT" and not after, evidence=evidence)


def prove(slots: Sequence[Slot], hidden: Sequence[str]) -> list[pb.Wall]:
    """Tries every wall.

    Args:
        slots: Ready, and idle.
        hidden: Paths of the host that must not be there.

    Returns:
        One entry per wall. A probe that fails in any other way than expected is a wall that does not hold.

    Raises:
        SlotLost: A fork server failed meanwhile.
    """
    try:
        seen = _look_around(slots, hidden)
        walls = [wall(seen) for wall in (_kernel, _network, _loopback, _processes, _files, _privileges)]
    except (RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
        return [pb.Wall(name="probe", holds=False, evidence=f"{type(error).__name__}: {error}")]
    attempts: tuple[Callable[[Sequence[Slot]], pb.Wall], ...] = (_memory, _process_limit, _disk, _death)
    return walls + [attempt(slots) for attempt in attempts]
