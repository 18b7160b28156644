"""What this machine sees of a runner that it started: processor time and memory, which gVisor tells differently inside.

Inside a box a process that is ready to run counts as running, whether it has a processor or not; and what the box's
kernel itself holds (pipes, sockets that nobody can reach any more) belongs to no process. Outside, both show.
"""

import asyncio
import collections
import os
import time
from collections.abc import Iterator

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY_SECONDS = 1.0
_KEPT = 600


def _stat(pid: str) -> tuple[int, int, int] | None:
    """Parent, ticks and resident pages of a process; see proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (hot)
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    # The children that it has waited for count too: a program's processes are gone when it is looked at.
    return int(fields[1]), sum(int(each) for each in fields[11:15]), int(fields[21])


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
        self._seen: collections.deque[tuple[float, float]] = collections.deque(maxlen=_KEPT)
        self._task = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Looks no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self._note(await asyncio.to_thread(lambda: list(_tree(self._pid))))
            await asyncio.sleep(_EVERY_SECONDS)

    def _note(self, processes: list[tuple[int, int]]) -> None:
        self._seen.append((time.monotonic(), sum(ticks for ticks, _ in processes) / _TICKS))
        self.resident_bytes = max((pages for _, pages in processes), default=0) * _PAGE

    async def cpu_seconds(self, last_seconds: float) -> float | None:
        """Processor time that the runner took lately, all of it together.

        Args:
            last_seconds: How far back; the window is widened to whole looks.

        Returns:
            Seconds, or None where it was not looked at for so long.
        """
        self._note(await asyncio.to_thread(lambda: list(_tree(self._pid))))
        begin = self._seen[-1][0] - last_seconds
        before = [cpu for at, cpu in self._seen if at <= begin]
        return self._seen[-1][1] - before[-1] if before else None
