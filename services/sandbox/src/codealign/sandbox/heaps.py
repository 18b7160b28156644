"""Arranges the memory of a root's fork servers, once for each root file system; see `runner/heap.c`.

The programs for practice, which are our own, run in a bundle like a runner's and return a profile of each fork server.
Until a root has profiles, or if they cannot be made, its fork servers have an ordinary heap: slower, with the same
verdicts.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fcntl
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from codealign.common.logs import get_logger
from codealign.runner import build
from codealign.runner.slot import HEAP, HEAPS
from codealign.sandbox import bundle, rootfs

MODULE = "codealign.runner.practice"
_SECONDS = 300.0

log = get_logger(__name__)


def _runner(root: Path) -> Path:
    return root / str(rootfs.SITE).lstrip("/") / "codealign" / "runner"


def are_there(root: rootfs.Root) -> bool:
    """Return whether a root has its profiles."""
    return (_runner(root.path) / HEAPS).is_dir()


async def prepare(root: rootfs.Root, folder: Path, commands: Sequence[Sequence[str]]) -> None:
    """Make the profiles of a root, unless it has them. Only logs a failure.

    Args:
        root: A root file system in the cache.
        folder: An empty directory, for a bundle.
        commands: Run the bundle in `folder`, the fastest first. The others are for machines that refuse it.
    """
    # One process practises, others wait for it.
    with _file_of(root).open("a") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not are_there(root):
            await _prepare(root, folder, commands)


def _file_of(root: rootfs.Root) -> Path:
    return root.path.with_name(f"{root.path.name}.lock")


async def _prepare(root: rootfs.Root, folder: Path, commands: Sequence[Sequence[str]]) -> None:
    faults: list[str] = []
    try:
        await asyncio.to_thread(_write_bundle, root, folder)
        for command in commands:
            try:
                found = _profiles(await _output(command))
            except (OSError, RuntimeError, ValueError, TimeoutError) as error:
                faults.append(str(error) or type(error).__name__)
                continue
            await asyncio.to_thread(_install, root, found)
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


async def _output(command: Sequence[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {errors.decode(errors='replace').strip()[-500:]}")
    return output.decode()


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
    """Put the profiles into a root. The folder comes last and at once, so nothing uses a part of them."""
    place = _runner(root.path)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=root.path.parent) as name:
        fresh = Path(name)
        build.build(fresh)
        (fresh / HEAPS).mkdir()
        for server, profile in profiles.items():
            (fresh / HEAPS / server).write_bytes(profile)
            (fresh / HEAPS / server).chmod(0o644)
        (fresh / HEAPS).chmod(0o755)
        (fresh / HEAP).chmod(0o755)
        (fresh / HEAP).replace(place / HEAP)
        try:
            (fresh / HEAPS).rename(place / HEAPS)
        except OSError:
            # Another process may have been first: a rename onto a non-empty directory fails.
            if not (place / HEAPS).is_dir():
                raise
