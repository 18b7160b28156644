"""Memory of a gateway and its runners over time."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.sandbox.tests.conftest import Gateway
from tests.hostile.host import descendants, resident_bytes

MIB = 2**20
_BLOCK = 512
"""Bytes per unit of st_blocks."""


@dataclass(frozen=True)
class Tree:
    """Memory of a process tree, in bytes."""

    pss: int
    """Resident memory, each page counted once."""
    rss: int
    """Resident memory, shared pages counted for each process."""
    file: int
    """Size of gVisor's memory file, which holds its programs' memory and files, mapped or not."""

    def __str__(self) -> str:
        """Return the sizes in MiB."""
        return f"{self.pss / MIB:.0f}/{self.rss / MIB:.0f}/{self.file / MIB:.0f}"


@dataclass(frozen=True)
class Look:
    """One measurement."""

    done: int
    """Number of finished executions."""
    gateway: Tree
    runners: dict[int, Tree]
    """Memory by process id."""


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _memory_files(pid: int) -> Iterator[tuple[int, int]]:
    """Return inode and size of the open memory files."""
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()).startswith("/memfd:runsc-memory"):
                    found = link.stat()
                    yield found.st_ino, found.st_blocks * _BLOCK


def _tree(root: int, below: set[int]) -> Tree:
    pids = {root, *below}
    files = dict(pair for pid in pids for pair in _memory_files(pid))
    return Tree(resident_bytes(root), sum(map(_rss, pids)), sum(files.values()))


def look(gateway: Gateway, done: int) -> Look:
    """Measure now."""
    runners = {pid: _tree(pid, descendants(pid)) for pid in gateway.children()}
    pid = gateway.process.pid
    whole = resident_bytes(pid)
    own = Tree(whole - sum(tree.pss for tree in runners.values()), _rss(pid), 0)
    return Look(done, own, runners)


def growth(looks: list[Look], runners: int) -> dict[str, tuple[float, float]]:
    """Return bytes at the beginning and at the end, by name: the medians of the first and last tenth of the
    measurements.

    Args:
        looks: After the warm-up.
        runners: How many there are; looks at which one is being started again say nothing.
    """
    whole = [each for each in looks if len(each.runners) == runners] or looks
    tenth = max(1, len(whole) // 10)
    found = {}
    for name in ("gateway", "runners", "memory files"):
        values = [_value(each, name) for each in whole]
        found[name] = (statistics.median(values[:tenth]), statistics.median(values[-tenth:]))
    return found


def _value(look: Look, name: str) -> float:
    if name == "gateway":
        return look.gateway.pss
    trees = look.runners.values()
    return sum(tree.pss if name == "runners" else tree.file for tree in trees)
