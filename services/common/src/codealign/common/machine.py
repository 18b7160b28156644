"""Resources of this machine."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int | None:
    """Return the available main memory in bytes: the machine's, or the control group's if that is less.

    Returns None if neither is known.
    """
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except OSError:
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            # Pages of files are reclaimed under pressure, so they do not count as used.
            taken = int((group / "memory.current").read_text()) - int(statistics.get("file", 0))
            limits.append(int(limit) - taken)
    except (OSError, ValueError):
        pass
    return min(limits, default=None)
