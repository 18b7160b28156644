"""Resource usage of a running execution, read from /proc."""

from __future__ import annotations

import dataclasses
import os

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
PROCESSORS = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Total usage of all processes of an execution."""

    cpu_seconds: float
    resident_bytes: int
    processes: int
    """Includes processes that have not been waited for."""
    threads: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    ticks: int
    pages: int
    threads: int


def _parse(stat: str) -> _Process:
    """Parse a line of /proc/PID/stat; see proc_pid_stat(5). Skips the command, which a program may choose."""
    fields = stat.rpartition(")")[2].split()
    # fields[0] is the state, field 3 of the manual.
    return _Process(
        parent=int(fields[1]),
        ticks=sum(int(field) for field in fields[11:15]),
        pages=int(fields[21]),
        threads=int(fields[17]),
    )


def _processes() -> dict[int, _Process]:
    found: dict[int, _Process] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                found[int(name)] = _parse(file.read())
        except (OSError, IndexError, ValueError):
            continue  # The process ended after it was listed.
    return found


def _tree(root: int, processes: dict[int, _Process]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in processes and pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def resident_bytes(pid: int) -> int:
    """Return the resident bytes of one process."""
    with open(f"/proc/{pid}/stat") as file:
        return _parse(file.read()).pages * _PAGE


def usage(root: int, inherited_bytes: int, elapsed: float) -> Usage:
    """Return the usage of the process `root` and all its descendants.

    The tree includes daemons: an orphan becomes a child of process 1 of its namespace, which is `root`.

    Args:
        root: The first process of an execution.
        inherited_bytes: Resident bytes that every process shares with the fork server, counted once.
        elapsed: Seconds since the execution began. gVisor counts waiting for a processor as CPU time, so the sum over
            many processes may exceed what all processors can provide in this time; the result is capped accordingly.
    """
    processes = _processes()
    own = [processes[pid] for pid in _tree(root, processes)]
    resident = sum(max(process.pages * _PAGE - inherited_bytes, 0) for process in own)
    return Usage(
        cpu_seconds=min(sum(process.ticks for process in own) / _TICKS, elapsed * PROCESSORS),
        resident_bytes=resident,
        processes=len(own),
        threads=sum(process.threads for process in own),
    )


def strays(known: set[int], other_servers: set[int]) -> set[int]:
    """Return processes that belong to no slot: leftovers of an execution, or its dead that are not yet reaped.

    Args:
        known: The supervisor, and the fork servers of the slot whose execution has ended.
        other_servers: The fork servers of other slots; their descendants belong to them.
    """
    unknown = {int(name) for name in os.listdir("/proc") if name.isdigit()} - known - other_servers
    if not unknown:
        return unknown
    processes = _processes()
    for server in other_servers:
        unknown -= _tree(server, processes)
    return unknown & processes.keys()


def box_used_bytes() -> int:
    """Return the memory used by the whole gVisor sandbox in bytes, including files on its tmpfs."""
    values: dict[str, int] = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * 1024
            if len(values) == 2:
                break
    return values["MemTotal"] - values["MemFree"]
