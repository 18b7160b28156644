"""Verifies a runner's isolation by trying to break it in the same way as any program could."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import os
import platform
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.runner import limit_checks, probes
from codealign.runner.configuration import PROGRAM_VARIABLES
from codealign.runner.execution import Program
from codealign.runner.limit_checks import run
from codealign.runner.profiles import Profile
from codealign.runner.slot import Slot

_OUTSIDE = (("1.1.1.1", 53), ("8.8.8.8", 443), ("169.254.169.254", 80), ("10.0.0.1", 443), ("192.168.0.1", 80))
_READ_ONLY = ("/", "/usr", "/usr/bin", "/etc", "/opt/codealign", "/dev", "/var", "/run", "/proc", "/sys", "/mnt")
_DEVICES = ("/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/port", "/proc/kcore", "/proc/kmsg")
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_IPC_CREATE, _IPC_REMOVE = 0o1666, 0
_LOOK_SECONDS = 60.0
"""Limit of the probe that looks around. It takes a second on an idle machine."""

_libc = ctypes.CDLL(None, use_errno=True)


def kernel() -> pb.IsolationCheck:
    """Check whether this process runs on gVisor's kernel. Called before anything is started that relies on it."""
    log = ctypes.create_string_buffer(1 << 16)
    length = max(_libc.klogctl(3, log, len(log) - 1), 0)
    lines = log.raw[:length].decode("utf-8", "replace").splitlines()[:1]
    return _kernel({"log": lines, "release": os.uname().release})


@contextlib.contextmanager
def _planted(slots: Sequence[Slot], token: str, key: int) -> Iterator[list[str]]:
    """Yield what another execution leaves. With a second slot it is still running, otherwise it has just ended."""

    def plant(seconds: float) -> Program:
        return Program(probes.PLANT, stdin=repr({"token": token, "key": key, "seconds": seconds}).encode())

    if len(slots) == 1:
        yield _answer(run(slots[0], plant(0)).stdout)
        return
    # The objects are the same each time. The second execution is there to be found running.
    left = _answer(run(slots[1], plant(0)).stdout)
    cancelled = threading.Event()
    planter = threading.Thread(target=run, args=(slots[1], plant(60), cancelled))
    planter.start()
    try:
        yield left
    finally:
        cancelled.set()
        planter.join()


@contextlib.contextmanager
def _listening() -> Iterator[tuple[int, str]]:
    """Open listeners in the supervisor that no program may reach: a loopback port and an abstract socket name."""
    name = secrets.token_hex(8)
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(f"\0{name}")
        unix.listen()
        port = tcp.getsockname()[1]
        # Otherwise a refused connection would prove nothing.
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        yield port, name


@contextlib.contextmanager
def _queue(key: int) -> Iterator[None]:
    """Create a System V message queue in the supervisor, which no program may find."""
    number = _libc.msgget(key, _IPC_CREATE)
    try:
        yield
    finally:
        if number >= 0:
            _libc.msgctl(number, _IPC_REMOVE, None)


def _answer(stdout: bytes) -> Any:
    try:
        return ast.literal_eval(stdout.decode())
    except (ValueError, SyntaxError):
        return None


def _look_around(slots: Sequence[Slot], hidden: Sequence[str], comment: str) -> dict[str, Any]:
    token = f"probe-{secrets.token_hex(8)}"
    key, runner_key = (secrets.randbelow(1 << 30) + 1 for _ in range(2))
    with _planted(slots, token, key) as left, _listening() as (port, unix), _queue(runner_key):
        arguments = {
            "outside": _OUTSIDE,
            "port": port,
            "unix": unix,
            "token": token,
            "key": key,
            "runner_key": runner_key,
            "hidden": list(hidden),
            "read_only": _READ_ONLY,
            "devices": _DEVICES,
            "clone": _SYS_CLONE.get(platform.machine(), -1),
        }
        code = f"{comment}\n{probes.LOOK_AROUND}"
        program = Program(code, stdin=repr(arguments).encode())
        # A connection that is dropped, not refused, takes a second for each address.
        seen = run(slots[0], program, wall_seconds=_LOOK_SECONDS, cpu_seconds=_LOOK_SECONDS)
    if not isinstance(left, list):
        raise RuntimeError("the probe that leaves traces did not answer")
    found = _answer(seen.stdout)
    if not isinstance(found, dict):
        why = f"killed: {seen.killed_for.value}" if seen.killed_for else f"exit code {seen.exit_code}"
        raise RuntimeError(f"the probe did not answer: {why}; {seen.stderr.decode('utf-8', 'replace')[-300:]!r}")
    return {**found, "left": left}


def _kernel(seen: dict[str, Any]) -> pb.IsolationCheck:
    log = " ".join(seen["log"])
    passed = "gvisor" in f"{log} {seen['release']}".lower()
    return pb.IsolationCheck(
        name="kernel", passed=passed, evidence=f"release {seen['release']}; first line of the kernel log: {log!r}"
    )


def _network(seen: dict[str, Any]) -> pb.IsolationCheck:
    attempts: dict[str, str] = seen["network"]
    evidence = ", ".join(f"{address}: {result}" for address, result in attempts.items())
    return pb.IsolationCheck(
        name="network", passed="CONNECTED" not in attempts.values(), evidence=f"connect to {evidence}"
    )


def _loopback(seen: dict[str, Any]) -> pb.IsolationCheck:
    attempts: dict[str, str] = seen["loopback"]
    evidence = f"with the runner listening: connect by TCP: {attempts['tcp']}, by abstract socket: {attempts['unix']}"
    return pb.IsolationCheck(name="loopback", passed="CONNECTED" not in attempts.values(), evidence=evidence)


def _ipc(seen: dict[str, Any]) -> pb.IsolationCheck:
    attempts: dict[str, str] = seen["ipc"]
    left = ", ".join(seen["left"])
    evidence = f"another execution left: {left}; " + ", ".join(f"{what}: {found}" for what, found in attempts.items())
    return pb.IsolationCheck(name="ipc", passed="FOUND" not in attempts.values(), evidence=evidence)


def _processes(seen: dict[str, Any]) -> pb.IsolationCheck:
    passed = seen["pid"] == 1 and seen["pids"] == [1] and not seen["signalled"]
    evidence = f"process id {seen['pid']}, sees {seen['pids']}, can signal {seen['signalled']}"
    return pb.IsolationCheck(name="processes", passed=passed, evidence=evidence)


def _files(seen: dict[str, Any]) -> pb.IsolationCheck:
    passed = not (seen["found"] or seen["visible"] or seen["writable"])
    evidence = (
        f"of another execution: {seen['found'] or 'nothing'}; of the host: {seen['visible'] or 'nothing'}; "
        f"writable outside its own directories: {seen['writable'] or 'nothing'}"
    )
    return pb.IsolationCheck(name="files", passed=passed, evidence=evidence)


def _settings(seen: dict[str, Any]) -> pb.IsolationCheck:
    opened = [*seen["open_settings"], *seen["open_devices"]]
    evidence = f"accessible of {seen['settings']} kernel settings and {len(_DEVICES)} devices: {opened or 'none'}"
    return pb.IsolationCheck(name="settings", passed=not opened, evidence=evidence)


def _privileges(seen: dict[str, Any]) -> pb.IsolationCheck:
    capabilities = {name: value for name, value in seen["capabilities"].items() if int(value, 16)}
    allowed = [name for name, result in seen["denied"].items() if result == 0]
    expected = {0, 1, 2}
    extra = sum(1 for number in seen["descriptors"] if number not in expected)
    # Two descriptors besides the standard ones: the witness's channel and the directory listing.
    passed = not capabilities and not allowed and seen["no_new_privs"] == 1 and seen["uid"] != 0 and extra <= 2
    evidence = (
        f"uid {seen['uid']}, capabilities {capabilities or 'none'}, no_new_privs {seen['no_new_privs']}, "
        f"granted of {', '.join(seen['denied'])}: {allowed or 'none'}; {extra} further descriptors"
    )
    return pb.IsolationCheck(name="privileges", passed=passed, evidence=evidence)


def _environment(seen: dict[str, Any]) -> pb.IsolationCheck:
    strange = sorted(set(seen["environment"]) - PROGRAM_VARIABLES)
    evidence = f"{len(seen['environment'])} variables; of the supervisor's: {strange or 'none'}"
    return pb.IsolationCheck(name="environment", passed=not strange, evidence=evidence)


_LOOKS: tuple[Callable[[dict[str, Any]], pb.IsolationCheck], ...] = (
    _kernel,
    _network,
    _loopback,
    _ipc,
    _processes,
    _files,
    _settings,
    _privileges,
    _environment,
)


def _combined(checks: Sequence[pb.IsolationCheck]) -> pb.IsolationCheck:
    """Combine the results of one check for the programs of every fork server: it passes only if all of them pass."""
    return next((each for each in checks if not each.passed), checks[0])


def run_all(slots: Sequence[Slot], profile: Profile, hidden: Sequence[str]) -> list[pb.IsolationCheck]:
    """Run every isolation check.

    Args:
        slots: Ready and idle slots.
        profile: Their profile.
        hidden: Host paths that must not be visible.

    Returns:
        One entry per check. A probe that fails unexpectedly counts as a failed check.

    Raises:
        SlotLost: A fork server failed during a check.
    """
    try:
        # A comment determines which of a slot's fork servers serves the probe.
        comments = ["", f"# {' '.join(profile.more)}"]
        if profile.packages:
            comments.append(f"# {' '.join(profile.packages)}")
        all_seen = [_look_around(slots, hidden, comment) for comment in comments]
        checks = [_combined([look(seen) for seen in all_seen]) for look in _LOOKS]
    except (RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
        return [pb.IsolationCheck(name="probe", passed=False, evidence=f"{type(error).__name__}: {error}")]
    # The limit checks rely on the other checks, except for the kernel, which is checked first of all.
    if not all(each.passed for each in checks[1:]):
        return checks
    return checks + [attempt(slots[0]) for attempt in limit_checks.ALL]
