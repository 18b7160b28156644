"""Cheap periodic check that a sandbox is unchanged since its isolation was verified.

Isolation is verified once, before the first job. Accidental later changes, and leftovers of a program, show up in
three counts that never change in an idle sandbox: processes, mounts and descriptors.
"""

from __future__ import annotations

import os
import time

_PER_EXECUTION = 16
"""Maximum number of descriptors that a running execution keeps open in the supervisor."""
_SETTLE_SECONDS = 1.0
"""Seconds for which a dead process may still be visible."""


class Unsound(Exception):
    """The sandbox has changed; the runner must be discarded."""


def _stats() -> dict[int, list[str]]:
    """Return the fields of /proc/PID/stat from field 3 on for every visible process; see proc_pid_stat(5)."""
    found: dict[int, list[str]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    found[int(name)] = file.read().rpartition(")")[2].split()
            except OSError:
                continue  # The process ended after it was listed.
    return found


def _parents() -> dict[int, int]:
    """Map every visible process to its parent."""
    return {pid: int(fields[1]) for pid, fields in _stats().items() if len(fields) > 1}


def threads_here() -> int:
    """Return the number of threads of all visible processes."""
    return sum(int(fields[17]) for fields in _stats().values() if len(fields) > 17)


def _mounts() -> int:
    with open("/proc/self/mountinfo") as file:
        return sum(1 for _ in file)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Soundness:
    """The counts of an idle sandbox. Create it when every slot is ready and idle.

    Args:
        spare_descriptors: Additional descriptors that the transport may open (a server's connections).
    """

    def __init__(self, spare_descriptors: int) -> None:
        self._own = os.getpid()
        parents = _parents()
        self._servers = {pid for pid, parent in parents.items() if parent == self._own}
        # A sandbox has no process outside the supervisor's tree; a machine without isolation does.
        self._outside = 0 if self._own == 1 else None
        self._mounts = _mounts()
        self._descriptors = _descriptors() + spare_descriptors

    def check(self, running: int) -> None:
        """Compare the counts with those of the idle sandbox.

        Args:
            running: Number of executions running in other slots.

        Raises:
            Unsound: The counts differ; the message says how.
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
            return f"the supervisor's children are the processes {sorted(children)}, expected {sorted(self._servers)}"
        if self._outside == 0:
            strange = sorted(pid for pid, parent in parents.items() if parent == 0 and pid != self._own)
            if strange:
                return f"processes {strange} entered the sandbox from outside"
        mounts = _mounts()
        if mounts != self._mounts:
            return f"the sandbox has {mounts} mounts, expected {self._mounts}"
        descriptors = _descriptors()
        if descriptors > self._descriptors + running * _PER_EXECUTION:
            return (
                f"the supervisor has {descriptors} open descriptors; at most {self._descriptors} are expected when idle"
            )
        return ""
