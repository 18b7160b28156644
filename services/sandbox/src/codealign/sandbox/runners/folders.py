"""One directory for each runner started by the gateway, locked while its gateway lives."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_LOCK = "lock"


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """Directory of one runner. Locked until this process ends, for whatever reason, or until it is removed."""

    path: Path
    _lock: int

    @classmethod
    def create(cls, run_dir: Path, name: str) -> Self:
        """Create the directory, readable only by this user, and lock it."""
        path = run_dir / name
        path.mkdir(parents=True, mode=0o700)
        lock = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(path, lock)

    def remove(self) -> None:
        """Remove the directory with its content."""
        _remove(self.path)
        os.close(self._lock)


def _remove(folder: Path) -> None:
    """Remove a directory. Newer releases of runsc leave a network namespace mounted in their state directory."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    for point in sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def is_held(folder: Path) -> bool:
    """Return whether the gateway that created the directory is alive (or is just creating it)."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return folder.is_dir()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def left_over(run_dir: Path) -> Iterator[Path]:
    """Yield the directories of gateways that were killed."""
    with contextlib.suppress(FileNotFoundError):
        yield from (folder for folder in sorted(run_dir.iterdir()) if not is_held(folder))


def clean(run_dir: Path) -> None:
    """Remove what killed gateways have left."""
    for folder in left_over(run_dir):
        _remove(folder)
