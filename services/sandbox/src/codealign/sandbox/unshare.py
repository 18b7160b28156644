"""Runs a runner's bundle in the machine's own namespaces, without gVisor. For debugging only.

    python -I -S unshare.py BUNDLE

implements the parts of an OCI runtime that `bundle` uses. The bundle's program is alone in its user (unless this is
root), mount, process, network, IPC and host name namespaces. But it talks to the kernel of this machine, so a kernel
bug is a way out.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REFUSED = 125
"""Exit code if this machine does not allow the namespaces. Standard error says which step failed."""

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 4096, 16384, 1 << 18, 2
_ATTRIBUTES = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
# The same number on all architectures; Linux 5.12 or newer.
_SYS_MOUNT_SETATTR = 442
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES = {"CAP_SETGID": 6, "CAP_SETUID": 7}
_LAST_CAPABILITY = 63
_DEVICES = ("null", "zero", "full", "random", "urandom")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: Path, kind: str | None, flags: int) -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode() if kind else None, ctypes.c_ulong(flags), None)
    _check(_libc.mount(*arguments), f"mount {target}")


def _restrict(target: Path, options: list[str], *, deep: bool = False) -> None:
    """Add options such as read-only to a mount (`deep`: and to those below it). Existing options stay."""
    attributes = sum(_ATTRIBUTES.get(option, 0) for option in options)
    structure = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if deep else 0
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), flags, structure, ctypes.c_size_t(len(structure))
    )
    _check(result, f"restrict {target}")


def _fill_devices(folder: Path) -> None:
    for name in _DEVICES:
        (folder / name).touch()
        _mount(f"/dev/{name}", folder / name, None, _MS_BIND)
    (folder / "shm").mkdir()
    for link, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (folder / link).symlink_to(f"/proc/self/{target}")
    _restrict(folder, ["ro", "nosuid"])


def _put(mount: dict[str, Any], root: Path) -> None:
    target = root / mount["destination"].lstrip("/")
    options = list(mount.get("options", ()))
    if mount["type"] == "bind":
        _mount(mount["source"], target, None, _MS_BIND | _MS_REC)
        _restrict(target, options, deep=True)
        return
    _mount(mount["type"], target, mount["type"], 0)
    if mount["destination"] == "/dev":
        _fill_devices(target)
    else:
        _restrict(target, options)


def _change_root(configuration: dict[str, Any], place: Path) -> None:
    _mount("none", Path("/"), None, _MS_REC | _MS_PRIVATE)
    _mount(configuration["root"]["path"], place, None, _MS_BIND | _MS_REC)
    for mount in configuration["mounts"]:
        _put(mount, place)
    _restrict(place, ["ro", "nosuid", "nodev"])
    os.chdir(place)
    # Put the new root on top of the old one, which is then unmounted.
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _drop_capabilities(kept: list[str]) -> None:
    numbers = {_CAPABILITIES[name] for name in kept}
    for number in range(_LAST_CAPABILITY + 1):
        if number not in numbers:
            # Numbers beyond the kernel's last capability give EINVAL and need no dropping.
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "run as root, or enable unprivileged user namespaces"
        print(f"this machine does not allow the namespaces ({error}): {why}", file=sys.stderr, flush=True)
        os._exit(REFUSED)


def _become(configuration: dict[str, Any], place: Path) -> None:
    """Become the bundle's program. Never returns."""
    process = configuration["process"]
    with _refusing():
        _change_root(configuration, place)
        _raise_loopback()
        socket.sethostname(configuration["hostname"])
    for limit in process["rlimits"]:
        resource.setrlimit(getattr(resource, limit["type"]), (limit["soft"], limit["hard"]))
    if os.getuid() == 0:
        _drop_capabilities(process["capabilities"]["bounding"])
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    os.chdir(process["cwd"])
    environment = dict(variable.split("=", 1) for variable in process["env"])
    os.execve(process["args"][0], process["args"], environment)  # noqa: S606


def main(folder: str) -> None:
    """Run a bundle and exit with its program's exit code."""
    bundle = Path(folder)
    configuration = json.loads((bundle / "config.json").read_text())
    place = bundle / "root"
    place.mkdir()
    user, group = os.getuid(), os.getgid()
    with _refusing():
        own = 0 if user == 0 else _NEWUSER
        _check(_libc.unshare(own | _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET), "unshare")
        if own:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    pid = os.fork()
    if pid == 0:
        _become(configuration, place)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main(sys.argv[1])
