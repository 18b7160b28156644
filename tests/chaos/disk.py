"""A disk that can be full: a small tmpfs if mounting is permitted, otherwise a limit on file sizes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 2**20


class Disk:
    """Data directory of a service.

    Args:
        folder: Where it lies; exists.
        mounted: A file system of its own is there.
    """

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self._folder = folder
        self._filler = folder / "filler"
        self.mounted = mounted

    @property
    def way(self) -> str:
        """How the disk is filled."""
        return "tmpfs without a free byte" if self.mounted else "files must not grow (RLIMIT_FSIZE)"

    def fill(self, pid: int) -> None:
        """Use up all space.

        Args:
            pid: Of the process that writes there. 0: there is none just now.
        """
        if not self.mounted:
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with self._filler.open("ab", buffering=0) as file:
            for size in (_BLOCK, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self, pid: int) -> None:
        """Free the space again."""
        if self.mounted:
            self._filler.unlink(missing_ok=True)
        elif pid:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def small(folder: Path, size: int) -> Iterator[Disk]:
    """Provide a disk of this size at this directory for the duration of the context; its content is removed
    afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield Disk(folder, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
