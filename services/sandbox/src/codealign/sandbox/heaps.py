"""Arranges the memory of a root's fork servers, once for each root file system; see `runner/heap.c`.

The programs for practice, which are our own, run in a bundle like a runner's and return a profile of each fork server.
Until a root has profiles, or if they cannot be made, its fork servers have an ordinary heap: slower, with the same
verdicts.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from codealign.common.logs import get_logger
from codealign.runner import build
from codealign.runner.slot import HEAPS
from codealign.sandbox import bundle, rootfs

MODULE = "codealign.runner.practice"
_SECONDS = 300.0

log = get_logger(__name__)


def _runner(root: Path) -> Path:
    return root / str(rootfs.SITE).lstrip("/") / "codealign" / "runner"


def are_there(root: rootfs.Root) -> bool:
    """Return whether a root has its profiles."""
    return (_runner(root.path) / HEAPS).is_dir()


def prepare(root: rootfs.Root, folder: Path, commands: Sequence[Sequence[str]]) -> None:
    """Make the profiles of a root, unless it has them. Blocks for seconds, and only logs a failure.

    Args:
        root: A root file system in the cache.
        folder: An empty directory, for a bundle.
        commands: Run the bundle in `folder`, the fastest first. The others are for machines that refuse it.
    """
    # One process practises, others wait for it.
    with root.path.with_name(f"{root.path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not are_there(root):
            _prepare(root, folder, commands)


def _prepare(root: rootfs.Root, folder: Path, commands: Sequence[Sequence[str]]) -> None:
    faults: list[str] = []
    try:
        _write_bundle(root, folder)
        for command in commands:
            try:
                found = _profiles(_output(command))
            except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                faults.append(str(error) or type(error).__name__)
                continue
            _install(root, found)
            log.info("heaps_arranged", blocks={name: len(profile) // 8 for name, profile in found.items()})
            return
    except (OSError, RuntimeError) as error:
        faults.append(str(error))
    log.warning("heaps_not_arranged", reason="; ".join(faults), effect="executions are slower")


def _write_bundle(root: rootfs.Root, folder: Path) -> None:
    copy = folder / "files"
    shutil.copytree(root.path, copy, symlinks=True, copy_function=os.link)
    build.build(_runner(copy), practice=True)
    bundle.write(folder, rootfs.Root(copy, ""), rootfs.interpreter(), [MODULE])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _profiles(output: str) -> dict[str, bytes]:
    """Parse what `practice` prints.

    Raises:
        ValueError: It is something else.
    """
    try:
        found = {name: base64.b64decode(text, validate=True) for name, text in map(str.split, output.splitlines())}
    except binascii.Error as error:
        raise ValueError(f"the profiles cannot be read: {error}") from error
    if not found or not all(found.values()):
        raise ValueError("the practice programs wrote to nothing")
    return found


def _install(root: rootfs.Root, profiles: dict[str, bytes]) -> None:
    """Put the profiles into a root, all at once, so that nothing uses a part of them."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=root.path.parent) as name:
        fresh = Path(name) / HEAPS
        fresh.mkdir()
        for server, profile in profiles.items():
            (fresh / server).write_bytes(profile)
            (fresh / server).chmod(0o644)
        fresh.chmod(0o755)
        fresh.rename(_runner(root.path) / HEAPS)
