"""System-call filter for programs: denies calls that they do not need, in addition to the namespaces.

A new user namespace would grant the program every capability inside it, and with them an unlimited mount. Memory
files, System V segments, semaphores and message queues, and extended attributes of files are memory that no limit
counts. A watch on one of the runner's files reveals what other executions do with it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

_EPERM, _ENOSYS = 1, 38
_ERRNO, _KILL_PROCESS = 0x00050000, 0x80000000
_LD_ABS, _JEQ, _JSET, _JGE, _RET = 0x20, 0x15, 0x45, 0x35, 0x06
_X32_BIT = 0x40000000
# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NEW_NAMESPACE = 0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

# Numbers from the kernel's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_DENIED = {
    "x86_64": {
        "ptrace": 101, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "add_key": 248,
        "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "userfaultfd": 323,
        "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432,
        "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
    },
    "aarch64": {
        "ptrace": 117, "pivot_root": 41, "chroot": 51, "mount": 40, "umount2": 39, "add_key": 217,
        "request_key": 218, "keyctl": 219, "unshare": 97, "perf_event_open": 241, "open_by_handle_at": 265,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "userfaultfd": 282,
        "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432,
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7,
    },
}  # fmt: skip
_ABSENT = {
    "x86_64": {
        "shmget": 29, "semget": 64, "msgget": 68, "inotify_init": 253, "inotify_init1": 294, "memfd_create": 319,
        "clone3": 435,
    },
    "aarch64": {"shmget": 194, "semget": 190, "msgget": 186, "inotify_init1": 26, "memfd_create": 279, "clone3": 435},
}  # fmt: skip
_FCNTL = {"x86_64": 72, "aarch64": 25}
_SETSOCKOPT = {"x86_64": 54, "aarch64": 208}
# Buffers of pipes and sockets use gVisor's kernel memory, which no process limit counts, so sizes cannot be changed.
_F_SETPIPE_SZ = 1031
_SOL_SOCKET = 1
_BUFFER_SIZES = (7, 8, 32, 33)
"""SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE."""
_CLONE = {"x86_64": 56, "aarch64": 220}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, value)


_ALLOW = _instruction(_RET, 0, 0, 0x7FFF0000)
_DENY = _instruction(_RET, 0, 0, _ERRNO | _EPERM)


def _argument(number: int) -> bytes:
    """Load the low half of a system-call argument from `struct seccomp_data`."""
    return _instruction(_LD_ABS, 0, 0, 16 + 8 * number)


def filter_program(machine: str | None = None) -> bytes:
    """Return the BPF program for a machine type (`uname -m`), by default this machine's.

    It finds the system call in a binary search tree. gVisor evaluates a new filter for every call number, so the number
    of steps counts at the start of each execution.

    Returns:
        The instructions, packed as `struct sock_filter[]`.

    Raises:
        RuntimeError: There is no system-call table for the machine type.
    """
    machine = machine or os.uname().machine
    if machine not in _CLONE:
        raise RuntimeError(f"no system-call table for {machine}; supported: {', '.join(sorted(_CLONE))}")
    lines = [
        _instruction(_LD_ABS, 0, 0, 4),
        _instruction(_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        _instruction(_RET, 0, 0, _KILL_PROCESS),
        _instruction(_LD_ABS, 0, 0, 0),
    ]
    if machine == "x86_64":
        lines += [_instruction(_JGE, 0, 1, _X32_BIT), _instruction(_RET, 0, 0, _ERRNO | _ENOSYS)]
    rules = {number: [_DENY] for number in _DENIED[machine].values()}
    rules |= {number: [_instruction(_RET, 0, 0, _ERRNO | _ENOSYS)] for number in _ABSENT[machine].values()}
    rules |= {
        _CLONE[machine]: [_argument(0), _instruction(_JSET, 0, 1, _NEW_NAMESPACE), _DENY, _ALLOW],
        _FCNTL[machine]: [_argument(1), _instruction(_JEQ, 0, 1, _F_SETPIPE_SZ), _DENY, _ALLOW],
        _SETSOCKOPT[machine]: [
            _argument(1),
            _instruction(_JEQ, 1, 0, _SOL_SOCKET),
            _ALLOW,
            _argument(2),
            *(_instruction(_JEQ, len(_BUFFER_SIZES) - index, 0, each) for index, each in enumerate(_BUFFER_SIZES)),
            _ALLOW,
            _DENY,
        ],
    }
    return b"".join(lines + _tree(sorted(rules.items())))


def _tree(rules: Sequence[tuple[int, list[bytes]]]) -> list[bytes]:
    """Return instructions that apply the rule of the loaded call number. Calls without a rule are allowed.

    Args:
        rules: Call numbers in ascending order, each with instructions that end with a return.
    """
    if len(rules) == 1:
        ((number, lines),) = rules
        return [_instruction(_JEQ, 0, len(lines), number), *lines, _ALLOW]
    middle = len(rules) // 2
    lower, upper = _tree(rules[:middle]), _tree(rules[middle:])
    return [_instruction(_JGE, len(lower), 0, rules[middle][0]), *lower, *upper]
