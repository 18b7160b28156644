"""What this machine has: memory, GPUs, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """One GPU's memory, in bytes."""

    total: int
    free: int


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs that `nvidia-smi` lists; none where there is no such program."""
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
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder lies, or will lie."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
