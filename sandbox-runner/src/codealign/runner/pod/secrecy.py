"""Hides the server's TLS key from programs.

A pod's certificate is mounted as a file that the pod's user can read, and programs run as that user. Therefore the
files are first read into memory. Then this process, and everything it starts later, moves into a mount namespace in
which their directories are covered.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from codealign.common.errors import ConfigurationError

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise ConfigurationError(f"cannot hide the TLS files from programs: {what}: {os.strerror(code)}")


def _into_memory(path: Path) -> Path:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path} ({error.strerror})") from None
    descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return Path(f"/proc/self/fd/{descriptor}")


def _own_mounts() -> None:
    """Enter new user and mount namespaces. Call it while the process has only one thread."""
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_CLONE_NEWUSER if user else 0), "unshare")
    if user:
        setgroups = Path("/proc/self/setgroups")
        if setgroups.exists():  # gVisor of 2024 has no such file.
            setgroups.write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    # In a second step, because gVisor refuses mounts in a namespace created together with the user namespace.
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")


def _give_up_capabilities() -> None:
    """Drop the capabilities that came with the new user namespace."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if os.getuid():
        _check(_libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24)), "capset")


def conceal(files: Sequence[Path]) -> Mapping[Path, Path]:
    """Hide files from this process's children and from itself.

    Args:
        files: The files; their directories are covered as a whole.

    Returns:
        The path from which this process can read each file from now on.

    Raises:
        ConfigurationError: A file cannot be read or its directory cannot be covered.
    """
    copies = {path: _into_memory(path) for path in files}
    folders = sorted({path.parent.resolve() for path in files})
    if folders:
        _own_mounts()
    for folder in folders:
        if folder in (Path("/"), Path("/etc"), Path("/usr"), Path("/opt")):
            raise ConfigurationError(f"TLS files must be in a directory of their own, not in {folder}")
        flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        _check(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, None), f"cover {folder}")
    if folders:
        _give_up_capabilities()
    return copies
