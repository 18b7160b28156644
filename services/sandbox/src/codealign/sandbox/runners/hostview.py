"""What this machine sees of a runner that it started: processor time and memory, which gVisor tells differently inside.

Inside a box a process that is ready to run counts as running, whether it has a processor or not; and what the box's
kernel itself holds (pipes, sockets that nobody can reach any more) belongs to no process. Outside, both show.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY_SECONDS = 1.0


def _stat(pid: str) -> tuple[int, int, int] | None:
    """Parent, ticks and resident pages of a process; see proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (hot)
            fields = file.read().rpartition(")")[2].split()
        # The children that it has waited for count too: a program's processes are gone when it is looked at.
        return int(fields[1]), sum(int(each) for each in fields[11:15]), int(fields[21])
    except (OSError, IndexError, ValueError):
        return None  # It ended between the two.


def _tree(root: int) -> Iterator[tuple[int, int]]:
    """Ticks and pages of a process and of all that descend from it."""
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
    """Looks once a second.

    Attributes:
        resident_bytes: The largest resident set among the runner's processes when last looked at: its kernel's, which
            holds its programs' memory.
    """

    def __init__(self, pid: int) -> None:
        """Begins to look; `close` ends it.

        Args:
            pid: Of the process that started the runner.
        """
        self.resident_bytes = 0
        self._pid = pid
        self._task = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Looks no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            processes = await asyncio.to_thread(lambda: list(_tree(self._pid)))
            self.resident_bytes = max((pages for _, pages in processes), default=0) * _PAGE
            await asyncio.sleep(_EVERY_SECONDS)

    async def cpu_seconds(self) -> float:
        """Processor time that the runner has had since its start, all of it together."""
        processes = await asyncio.to_thread(lambda: list(_tree(self._pid)))
        return sum(ticks for ticks, _ in processes) / _TICKS
