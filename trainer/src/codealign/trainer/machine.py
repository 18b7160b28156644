"""This machine's memory, GPUs and disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """Memory of one GPU, in bytes."""

    total: int
    free: int


def gpus() -> list[Gpu]:
    """List the NVIDIA GPUs according to `nvidia-smi`; empty if it is not installed."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        numbers = [[int(part) * 2**20 for part in line.split(",")] for line in answer.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return [Gpu(total, free) for total, free in numbers]


def cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0))


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that holds a directory, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
