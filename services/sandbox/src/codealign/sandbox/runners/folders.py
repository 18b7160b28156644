"""A folder for each runner that the gateway starts, which says whether its gateway is still there."""

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
    """One runner's. Locked until this process ends, however it ends, or until it is removed."""

    path: Path
    _lock: int

    @classmethod
    def create(cls, run_dir: Path, name: str) -> Self:
        """Makes the folder, readable by this user alone, and locks it."""
        path = run_dir / name
        path.mkdir(parents=True, mode=0o700)
        lock = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(path, lock)

    def remove(self) -> None:
        """Removes it with everything in it."""
        _remove(self.path)
        os.close(self._lock)


def _remove(folder: Path) -> None:
    """Newer releases of runsc leave a network namespace mounted in their state folder."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    for point in sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def is_held(folder: Path) -> bool:
    """Whether the gateway that made this folder lives (or is just making it)."""
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
    """The folders of gateways that were killed."""
    with contextlib.suppress(FileNotFoundError):
        yield from (folder for folder in sorted(run_dir.iterdir()) if not is_held(folder))


def clean(run_dir: Path) -> None:
    """Removes what gateways that were killed have left."""
    for folder in left_over(run_dir):
        _remove(folder)
