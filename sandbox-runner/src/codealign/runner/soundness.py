"""Whether a box is still what it was when its walls were proved: looked at every so often, cheaply.

The walls are proved once, before the first job. What changes afterwards without anyone's doing so on purpose, and what
a program might leave behind, shows in three counts that an idle box never changes: processes, mounts, descriptors.
"""

from __future__ import annotations

import os
import time

_PER_EXECUTION = 16
"""Descriptors that an execution holds in the supervisor while it runs, at most."""
_SETTLE_SECONDS = 1.0
"""What has died may be seen for so long."""


class Unsound(Exception):
    """The box has changed: the runner is to be thrown away."""


def _stats() -> dict[int, list[str]]:
    """Every process of the box: /proc/PID/stat from field 3 on; see proc_pid_stat(5)."""
    found: dict[int, list[str]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    found[int(name)] = file.read().rpartition(")")[2].split()
            except OSError:
                continue  # It ended between the two.
    return found


def _parents() -> dict[int, int]:
    """Every process of the box, and its parent."""
    return {pid: int(fields[1]) for pid, fields in _stats().items() if len(fields) > 1}


def threads_here() -> int:
    """Threads of all processes that can be seen."""
    return sum(int(fields[17]) for fields in _stats().values() if len(fields) > 17)


def _mounts() -> int:
    with open("/proc/self/mountinfo") as file:
        return sum(1 for _ in file)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Soundness:
    """The counts of an idle box, and the comparison with them."""

    def __init__(self, spare_descriptors: int) -> None:
        """Counts; to be made when every slot is ready and none works.

        Args:
            spare_descriptors: How many more the transport may come to hold (a server's connections).
        """
        self._own = os.getpid()
        parents = _parents()
        self._servers = {pid for pid, parent in parents.items() if parent == self._own}
        # In a box there is nothing outside the supervisor's tree; where it is an ordinary process there is.
        self._outside = 0 if self._own == 1 else None
        self._mounts = _mounts()
        self._descriptors = _descriptors() + spare_descriptors

    def check(self, running: int) -> None:
        """Compares.

        Args:
            running: Executions under way in other slots.

        Raises:
            Unsound: Something is there that was not, or the other way round; says what.
        """
        give_up = time.monotonic() + _SETTLE_SECONDS
        while fault := self._fault(running):
            if time.monotonic() > give_up:
                raise Unsound(fault)
            time.sleep(0.01)

    def _fault(self, running: int) -> str:
        parents = _parents()
        children = {pid for pid, parent in parents.items() if parent == self._own}
        if children != self._servers:
            return f"its children are the processes {sorted(children)}, and were {sorted(self._servers)}"
        if self._outside == 0:
            strange = sorted(pid for pid, parent in parents.items() if parent == 0 and pid != self._own)
            if strange:
                return f"processes {strange} came into the box from outside"
        mounts = _mounts()
        if mounts != self._mounts:
            return f"it has {mounts} mounts, and had {self._mounts}"
        descriptors = _descriptors()
        if descriptors > self._descriptors + running * _PER_EXECUTION:
            return f"it holds {descriptors} descriptors, at most {self._descriptors} when idle"
        return ""
