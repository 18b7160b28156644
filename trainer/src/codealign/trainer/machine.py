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
    """List the NVIDIA GPUs that a program started here sees, in its order; empty if there is no `nvidia-smi`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        lines = [[part.strip() for part in line.split(",")] for line in answer.splitlines() if line.strip()]
        found = [(index, uuid, Gpu(int(total) * 2**20, int(free) * 2**20)) for index, uuid, total, free in lines]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _visible(found: list[tuple[str, str, Gpu]], names: str | None) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names by number or UUID, which may be shortened. None: all."""
    if names is None or names.strip().startswith("MIG-"):  # parts of a GPU are not in the list
        return [gpu for _, _, gpu in found]
    seen: list[Gpu] = []
    for name in map(str.strip, names.split(",")):
        same = [gpu for index, uuid, gpu in found if name == index or (len(name) > 4 and uuid.startswith(name))]
        if len(same) != 1:  # as in CUDA, a name that is none hides those after it
            break
        seen += same
    return seen


def cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0))


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that holds a directory, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
