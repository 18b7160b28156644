"""Measures a runner from the host: processor time and memory, which look different inside gVisor.

Inside a sandbox, a process that is ready to run counts as running even without a processor. Memory held by the
sandbox's kernel (pipes, sockets that nobody can reach any more) belongs to no process. The host sees both correctly.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY_SECONDS = 1.0


def _stat(pid: str) -> tuple[int, int, int] | None:
    """Return the parent, ticks and resident pages of a process; see proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (hot)
            fields = file.read().rpartition(")")[2].split()
        # Includes the children that it has waited for: a program's processes may already be gone.
        return int(fields[1]), sum(int(each) for each in fields[11:15]), int(fields[21])
    except (OSError, IndexError, ValueError):
        return None  # The process ended after it was listed.


def _tree(root: int) -> Iterator[tuple[int, int]]:
    """Yield the ticks and pages of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    found = {int(pid): stat for pid in os.listdir("/proc") if pid.isdigit() and (stat := _stat(pid))}  # noqa: PTH208 (hot)
    for pid, (parent, _, _) in found.items():
        children.setdefault(parent, []).append(pid)
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in found:
            yield found[pid][1:]
        waiting += children.get(pid, [])


class HostView:
    """Measures a runner once a second until it is closed.

    Args:
        pid: Process id of the command that started the runner.

    Attributes:
        resident_bytes: The largest resident set among the runner's processes at the last measurement. It is that of the
            sandbox's kernel, which holds its programs' memory.
    """

    def __init__(self, pid: int) -> None:
        self.resident_bytes = 0
        self._pid = pid
        self._task = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Stop measuring."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            processes = await asyncio.to_thread(lambda: list(_tree(self._pid)))
            self.resident_bytes = max((pages for _, pages in processes), default=0) * _PAGE
            await asyncio.sleep(_EVERY_SECONDS)

    async def cpu_seconds(self) -> float:
        """Return the total processor time of the runner since its start."""
        processes = await asyncio.to_thread(lambda: list(_tree(self._pid)))
        return sum(ticks for ticks, _ in processes) / _TICKS
