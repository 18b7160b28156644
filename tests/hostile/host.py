"""Traces that a program would leave on this machine if it escaped the sandbox.

Other work goes on on the machine meanwhile, so everything is looked for by whose it is: processes descend from this
one (also those whose parent has died), sockets belong to such a process, and every file or name that a program of the
corpus makes has the word MARK in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

MARK = "hostile"
KEY = "4711"
"""Key of the semaphores, queues and segments that the corpus creates."""
_PR_SET_CHILD_SUBREAPER = 36
_PROGRAMS = ("python", "runsc", "docker")
"""Executables of a gateway and its runners."""
_FOLDERS = ("/", "/box", "/dev/mqueue", "/dev/shm", "/run", "/tmp", "/usr/local/bin", "/var/tmp", "/root", "/home")
_TCP_LISTEN, _UNCONNECTED = "0A", "07"


def _stat(pid: int) -> tuple[int, str]:
    """Return parent and state."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), fields[0]


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return _stat(pid)[1] not in "ZX"
    return False


def descendants(root: int) -> set[int]:
    """Return the live processes below a process."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent, state = _stat(int(folder.name))
            if state not in "ZX":
                children.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found


def resident_bytes(root: int) -> int:
    """Return the resident memory of a process tree, with shared pages counted once."""
    total = 0
    for pid in {root, *descendants(root)}:
        with contextlib.suppress(OSError, IndexError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(rollup.partition("\nPss:")[2].split()[0]) * 1024
    return total


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200]
    return ""


def _inodes(pids: set[int]) -> set[str]:
    """Return the inodes of their sockets. Processes without a command are gVisor's stubs, which share its
    descriptors."""
    found = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*") if _command(pid) else ():
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _sockets() -> Iterator[tuple[str, str]]:
    """Return the bound sockets of this machine: the inode of each, and its table with its address."""
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] in (_TCP_LISTEN, _UNCONNECTED):
                    yield fields[9], f"{table} {fields[1]}"
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        # Files in a runner's directory come and go with it.
        if len(fields) == 8 and "/run/runsc-" not in fields[7]:
            yield fields[6], f"unix {fields[7]}"


def _marked() -> Iterator[str]:
    for folder in {*map(Path, _FOLDERS), Path(tempfile.gettempdir()), Path.cwd(), Path.home()}:
        with contextlib.suppress(OSError):
            yield from (str(path) for path in folder.iterdir() if MARK in path.name)
    for table in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/sysvipc/{table}").read_text().splitlines()
            yield from (f"{table} {line}" for line in lines if line.split()[0] == KEY)


class Host:
    """A snapshot of this machine, to compare with its later state."""

    def __init__(self, gateway: int, cache: Path) -> None:
        """Remembers it.

        Args:
            gateway: A process of the gateway that is ready, started by this process.
            cache: Its folder, which nothing else uses.
        """
        self._gateway, self._cache = gateway, cache
        # A process below this one whose parent ends is then this one's, and not process 1's: nothing gets lost.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._known = descendants(os.getpid())
        self._marked = set(_marked())
        self._sockets = self._own_sockets()
        self._files = self._kept_files()
        self._containers = self._own_containers()

    def close(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def changes(self) -> list[str]:
        """Return what is new while the gateway runs, or "" for nothing."""
        below = descendants(self._gateway)
        lost = descendants(os.getpid()) - self._known - below
        found = [f"process {pid} got away: {_command(pid)}" for pid in sorted(lost) if _is_alive(pid)]
        for pid in sorted(below):
            program = self._program(pid)
            if program and not program.startswith(_PROGRAMS):
                found.append(f"process {pid} of a runner is {program}")
        found += [f"new: {name}" for name in sorted(set(_marked()) - self._marked)]
        found += [f"new socket: {name}" for name in sorted(self._own_sockets() - self._sockets)]
        return found

    def remains(self) -> list[str]:
        """Return what is left once the gateway has ended."""
        left = descendants(os.getpid()) - self._known
        found = [f"process {pid} is left: {_command(pid)}" for pid in sorted(left) if _is_alive(pid)]
        if self._gateway in descendants(os.getpid()):
            found.append("the gateway has not ended")
        run = self._cache / "run"
        found += [f"left: {path}" for path in (sorted(run.iterdir()) if run.is_dir() else ())]
        found += [f"new: {name}" for name in sorted(set(_marked()) - self._marked)]
        files = self._kept_files()
        found += [f"in the cache: {path}" for path in sorted(files.items() ^ self._files.items())]
        found += [f"container {name} is left" for name in sorted(self._own_containers() - self._containers)]
        return found

    def _own_sockets(self) -> set[str]:
        own = _inodes({self._gateway, *descendants(self._gateway)})
        return {name for inode, name in _sockets() if inode in own or MARK in name}

    def _own_containers(self) -> set[str]:
        """Return all containers except those of gateways with another folder."""
        if shutil.which("docker") is None:
            return set()
        command = ["docker", "ps", "--all", "--format", '{{.ID}} {{.Label "codealign.run-dir"}}']
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        own = f":{(self._cache / 'run-docker').resolve()}"
        by_owner = (line.partition(" ")[::2] for line in lines)
        return {name for name, owner in by_owner if not owner or owner.endswith(own)}

    def _kept_files(self) -> dict[str, tuple[int, int]]:
        """Return the cache's files, except those that a running gateway changes."""
        found = {}
        for path in self._cache.rglob("*"):
            name = path.relative_to(self._cache)
            if name.parts[0] not in ("run", "run-docker", "bin", "platform.json") and path.is_file():
                stat = path.stat()
                found[str(name)] = (stat.st_size, stat.st_mtime_ns)
        return found

    @staticmethod
    def _program(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/exe").readlink().name
        except OSError:
            return ""
