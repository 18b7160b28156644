"""OCI bundle of a runner: its mounts, user and capabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codealign.runner.configuration import Configuration
from codealign.sandbox import rootfs

_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
# To switch to unprivileged users once at the start: with a user per slot, gVisor counts each slot's processes apart.
_CAPABILITIES = ["CAP_SETUID", "CAP_SETGID"]


def _bind(source: Path, target: Path) -> dict[str, Any]:
    return {
        "destination": str(target),
        "source": str(source),
        "type": "bind",
        "options": ["rbind", "ro", "nosuid", "nodev"],
    }


def _empty(target: Path) -> dict[str, Any]:
    return {"destination": str(target), "source": "tmpfs", "type": "tmpfs", "options": ["ro", "nosuid", "nodev"]}


def _mounts(python: rootfs.Interpreter) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "source": "proc", "type": "proc"},
        {"destination": "/dev", "source": "tmpfs", "type": "tmpfs"},
        # Otherwise gVisor mounts a writable one that all executions would share.
        _empty(Path("/tmp")),  # noqa: S108 (a path inside the sandbox)
        _bind(Path("/usr"), Path("/usr")),
    ]
    for name in ("/lib", "/lib64"):
        if Path(name).is_dir() and not Path(name).is_symlink():
            mounts.append(_bind(Path(name), Path(name)))
    if python.box_prefix != python.prefix:
        mounts.append(_bind(python.prefix, python.box_prefix))
    # Packages and programs installed on this machine would make verdicts depend on it.
    local, version = Path("/usr/local"), ".".join(python.version.split(".")[:2])
    masked = [local, Path("/usr/lib/python3/dist-packages"), Path("/usr/src")]
    masked += [python.box_prefix / "lib" / f"python{version}" / "site-packages"]
    for target in masked:
        in_prefix = target.is_relative_to(python.box_prefix)
        on_host = python.prefix / target.relative_to(python.box_prefix) if in_prefix else target
        if on_host.is_dir():
            mounts.append(_empty(target))
    return mounts


def _environment(python: rootfs.Interpreter) -> list[str]:
    """Return the supervisor's environment. That of its programs is `configuration.program_environment`."""
    variables = {"PATH": f"{python.executable.parent}:/usr/bin:/bin", "PYTHONPATH": str(rootfs.SITE)}
    if python.shared_library and python.box_prefix != python.prefix:
        variables["LD_LIBRARY_PATH"] = str(python.box_prefix / "lib")
    return [f"{name}={value}" for name, value in variables.items()]


def supervisor(runner: Configuration) -> list[str]:
    """Return a supervisor's module and arguments."""
    return ["codealign.runner.stdio", runner.to_json()]


def write(folder: Path, root: rootfs.Root, python: rootfs.Interpreter, module: Sequence[str]) -> None:
    """Write `config.json` into a bundle directory.

    Args:
        folder: The bundle.
        root: The runner's root file system.
        python: The interpreter in it.
        module: What it runs: a module of the runner and its arguments.
    """
    command = [str(python.executable), "-S", "-s", "-P", "-m", *module]
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES)
    configuration = {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": str(root.path), "readonly": True},
        "process": {
            # Root inside gVisor only, whoever started it. The supervisor gives it up before it reads a job.
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": _environment(python),
            "cwd": "/",
            "capabilities": {**capabilities, "inheritable": [], "ambient": []},
            "noNewPrivileges": True,
            # If the machine runs out of memory, the kernel kills the sandbox first.
            "oomScoreAdj": 1000,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        },
        "mounts": _mounts(python),
        "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
    }
    (folder / "config.json").write_text(json.dumps(configuration, indent=1))
