"""Keeps the server's own key out of its programs' sight.

Whoever gives a pod a certificate mounts a file that the pod's user can read, and programs run as that user. So the
files are read into memory first; then this process, and with it everything that it starts, moves into a mount
namespace in which their folders are covered.
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
        raise ConfigurationError(f"the TLS files cannot be kept from programs: {what}: {os.strerror(code)}")


def _into_memory(path: Path) -> Path:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path} ({error.strerror})") from None
    descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return Path(f"/proc/self/fd/{descriptor}")


def _own_mounts() -> None:
    """To be called before there is a second thread."""
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_CLONE_NEWUSER if user else 0), "unshare")
    if user:
        setgroups = Path("/proc/self/setgroups")
        if setgroups.exists():  # gVisor of 2024 has no such file.
            setgroups.write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    # In a second step: gVisor refuses mounts in a namespace that came together with the user namespace.
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")


def _give_up_capabilities() -> None:
    """The new user namespace came with all of them."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if os.getuid():
        _check(_libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24)), "capset")


def conceal(files: Sequence[Path]) -> Mapping[Path, Path]:
    """Takes files out of sight of this process's children, and of its own.

    Args:
        files: The folders that they are in are covered as a whole.

    Returns:
        Where this process reads each of them from now on.

    Raises:
        ConfigurationError: One cannot be read, or covered.
    """
    copies = {path: _into_memory(path) for path in files}
    folders = sorted({path.parent.resolve() for path in files})
    if folders:
        _own_mounts()
    for folder in folders:
        if folder in (Path("/"), Path("/etc"), Path("/usr"), Path("/opt")):
            raise ConfigurationError(f"TLS files must be in a folder of their own, not in {folder}")
        flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        _check(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, None), f"cover {folder}")
    if folders:
        _give_up_capabilities()
    return copies
