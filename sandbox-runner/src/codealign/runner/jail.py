"""The walls between executions: fresh namespaces, an own disk, resource limits, no capability.

Standard library only: this runs in the fork server and its children. Nothing here needs a capability; gVisor grants
user namespaces to an unprivileged process (releases from 20240729 on; older ones pretend).
"""

import contextlib
import ctypes
import dataclasses
import os
import platform
import resource
import signal
import struct
from collections.abc import Callable
from typing import Any

from codealign.runner import seccomp

BOX = "/box"
WORK = f"{BOX}/work"

_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000
# The mount namespace is not among them: gVisor refuses mounts in one that was made by the same clone as the user
# namespace, and allows them in one that the child makes for itself.
_NAMESPACES = _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND = 2, 4, 8, 4096
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_REPORT_ROOM = 16 * 1024 * 1024
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter lock: clone and the fork hooks must be one uninterrupted step.
_locked = ctypes.PyDLL(None, use_errno=True)
_locked.syscall.restype = ctypes.c_long
_libc.pthread_self.restype = ctypes.c_void_p


@dataclasses.dataclass(frozen=True, slots=True)
class Walls:
    """The limits that the kernel itself keeps for one execution."""

    cpu_seconds: int
    memory_bytes: int
    processes: int
    disk_bytes: int


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _thread_id_address() -> int:
    """Where glibc keeps this thread's id, so that clone can write the child's there as glibc's own fork does.

    Without it `raise` and `abort` in the child would signal a thread that does not exist in its namespace.
    """
    own = int(_libc.pthread_self())
    words = struct.unpack("256i", ctypes.string_at(own, 1024))
    tid = _libc.gettid()
    return next((own + 4 * index for index, word in enumerate(words) if word == tid), 0)


def clone_arguments() -> tuple[Any, ...]:
    """The arguments of clone(2) for a child in fresh namespaces; compute them once, in the forking thread."""
    machine = platform.machine()
    if machine not in _SYS_CLONE:
        raise RuntimeError(f"clone on {machine} is not known")
    address = _thread_id_address()
    thread_flags = (_CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID) if address else 0
    flags = _NAMESPACES | thread_flags | signal.SIGCHLD
    # The last two arguments, child_tid and tls, have each other's place on arm64.
    tail = (address, 0) if machine == "x86_64" else (0, address)
    return (ctypes.c_long(_SYS_CLONE[machine]), ctypes.c_long(flags), None, None, *map(ctypes.c_void_p, tail))


def clone(arguments: tuple[Any, ...]) -> int:
    """Forks into fresh user, process, network and IPC namespaces in one step.

    One clone costs what one fork costs; `unshare` and a second fork, the usual way into a process namespace, cost
    twice that. The child is process 1 of its namespace, so its end is the end of everything it started.

    Returns:
        0 in the child; the child's process id in the parent.

    Raises:
        OSError: The kernel refused.
    """
    _locked.PyOS_BeforeFork()
    pid = int(_locked.syscall(*arguments))
    code = ctypes.get_errno()
    if pid == 0:
        _locked.PyOS_AfterFork_Child()
        return 0
    _locked.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
    result = _libc.mount(source, target, kind, ctypes.c_ulong(flags), options)
    _check(result, f"mount {target.decode()}")


def _map_user(uid: int, gid: int) -> None:
    # gVisor of 2024 has no such file, and does not ask for it.
    with contextlib.suppress(FileNotFoundError):
        _write("/proc/self/setgroups", b"deny")
    _write("/proc/self/uid_map", b"%d %d 1" % (uid, uid))
    _write("/proc/self/gid_map", b"%d %d 1" % (gid, gid))


def _own_disk(options: bytes) -> None:
    _mount(b"tmpfs", BOX.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)
    for name in ("work", "tmp", "shm"):
        os.mkdir(f"{BOX}/{name}", 0o700)
    _mount(b"/box/tmp", b"/tmp", None, _MS_BIND)
    _mount(b"/box/shm", b"/dev/shm", None, _MS_BIND)


def _limit(walls: Walls) -> None:
    for which, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_FSIZE, walls.disk_bytes),
        (resource.RLIMIT_NPROC, walls.processes),
    ):
        resource.setrlimit(which, (value, value))
    # The harness takes the room between soft and hard when it reports a MemoryError.
    resource.setrlimit(resource.RLIMIT_AS, (walls.memory_bytes, walls.memory_bytes + _REPORT_ROOM))
    # Soft: SIGXCPU, which says why; hard: SIGKILL, for a program that ignores it.
    resource.setrlimit(resource.RLIMIT_CPU, (walls.cpu_seconds, walls.cpu_seconds + 1))


class Jail:
    """What the fork server prepares once, so that entering is a handful of system calls."""

    def __init__(self) -> None:
        self._uid, self._gid = os.getuid(), os.getgid()
        self._filter = seccomp.Filter()
        self._arguments = clone_arguments()
        self._no_capability = (struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
        self._inode_option = b""
        if self._supports_inode_limit():
            self._inode_option = b",nr_inodes=16384"

    def fork(self) -> int:
        """See `clone`."""
        return clone(self._arguments)

    def enter(self, walls: Walls) -> None:
        """Puts the calling child behind its walls. Nothing that is not trusted may run before this returns.

        Raises:
            OSError: A wall could not be put up; the caller must end the process.
        """
        os.setsid()
        _map_user(self._uid, self._gid)
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        _own_disk(b"size=%d,mode=755%b" % (walls.disk_bytes, self._inode_option))
        _mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        os.chdir(WORK)
        _limit(walls)
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        _check(_libc.capset(*self._no_capability), "capset")
        self._filter.install()

    def _supports_inode_limit(self) -> bool:
        def attempt() -> None:
            _map_user(self._uid, self._gid)
            _check(_libc.unshare(_CLONE_NEWNS), "unshare")
            _mount(b"tmpfs", BOX.encode(), b"tmpfs", 0, b"size=65536,nr_inodes=16")

        return self._succeeds(attempt)

    def _succeeds(self, attempt: Callable[[], None]) -> bool:
        pid = self.fork()
        if pid == 0:
            try:
                attempt()
            except OSError:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
