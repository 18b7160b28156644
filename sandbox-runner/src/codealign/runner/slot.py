"""A slot with its fork servers, which runs one program at a time."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys

from codealign.runner import forkserver, watch
from codealign.runner.profiles import Profile
from codealign.runner.waits import Waits

# .../site/codealign/runner/slot.py
SITE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Directory where fork servers find the runner and its packages."""
_START_SECONDS = 60.0
_ANSWER_SECONDS = 10.0


class SlotLost(Exception):
    """The fork server is gone or does not answer; the runner must be restarted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """The end of an execution's first process, and with it of all its processes."""

    status: int
    """As returned by wait(2)."""
    cpu_seconds: float
    peak_bytes: int


class Ledger:
    """State shared by the slots of a sandbox: resident bytes, and which process belongs to which slot.

    Args:
        box_bytes: Memory limit of the whole sandbox.

    Attributes:
        waits: Time that executions spent waiting for a processor.
    """

    def __init__(self, box_bytes: int) -> None:
        self.waits = Waits()
        self._box_bytes = box_bytes
        self._idle_bytes = 0
        self._resident: dict[int, int] = {}
        self._servers: dict[int, set[int]] = {}

    def idle(self) -> None:
        """Record the memory of the idle sandbox. Call it when every slot is ready and idle."""
        self._idle_bytes = watch.box_used_bytes()

    def serves(self, slot: int, pid: int) -> None:
        """Register `pid` as a fork server of `slot`."""
        self._servers.setdefault(slot, set()).add(pid)

    def note(self, slot: int, resident: int) -> None:
        """Record the resident bytes of the execution in `slot`."""
        self._resident[slot] = resident

    def is_over(self, slot: int, memory_bytes: int) -> bool:
        """Return whether the execution in `slot` must be killed for memory, given the last measurements.

        Pages that its processes share are counted for each process, so the whole sandbox must have grown by as much.
        """
        used, own = watch.box_used_bytes(), self._resident[slot]
        if own > memory_bytes and used - self._idle_bytes > memory_bytes:
            return True
        return used > self._box_bytes and own >= max(self._resident.values())

    def strays(self, slot: int) -> set[int]:
        """Return processes that belong neither to the sandbox nor to another slot's execution."""
        others = {pid for index, pids in self._servers.items() if index != slot for pid in pids}
        return watch.strays({os.getpid(), *self._servers[slot]}, others)


class _Server:
    """A fork server and the socket to it."""

    def __init__(self, modules: tuple[str, ...], user: int | None) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = [forkserver.__file__, SITE, str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", *script, *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Programs inherit this environment.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        self.resident_bytes = 0


class Slot:
    """A light fork server, one with more modules, and one with packages if any is installed.

    Creating a slot starts the fork servers; `wait_ready` waits for them. It runs one execution at a time.

    Args:
        index: The slot's number, from 0.
        profile: Determines what the fork servers import.
        ledger: Shared by the slots of a sandbox.
        user: A user and group id for this slot alone, where the supervisor may assign one, so that the kernel counts
            its processes separately from other slots'. None: the supervisor's user.

    Attributes:
        index: The slot's number.
        ledger: Shared by the slots of a sandbox.
        null: An open /dev/null.
        neighbours: Maximum number of processes and threads of other slots under the same user. 0 if the slot has a
            user of its own.
    """

    def __init__(self, index: int, profile: Profile, ledger: Ledger, user: int | None) -> None:
        self.index = index
        self.ledger = ledger
        self.neighbours = 0
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._profile = profile
        self._light = _Server(profile.modules, user)
        self._full = _Server((*profile.modules, *profile.more), user)
        self._servers = [self._light, self._full]
        self._packaged: _Server | None = None
        if profile.packages:
            self._packaged = _Server((*profile.modules, *profile.more, *profile.packaged), user)
            self._servers.append(self._packaged)
        self._serving = self._light
        for server in self._servers:
            ledger.serves(index, server.process.pid)

    def wait_ready(self) -> None:
        """Wait until the fork servers have imported their modules.

        Raises:
            SlotLost: A fork server did not start.
        """
        for server in self._servers:
            self._serving = server
            server.control.settimeout(_START_SECONDS)
            try:
                self._receive()
            except SlotLost as error:
                packages = ", ".join(self._profile.packages)
                advice = f" ({packages} installed for programs: reinstall or remove it)"
                raise SlotLost(f"{error}{advice if server is self._packaged else ''}") from None
            server.resident_bytes = watch.resident_bytes(server.process.pid)
            server.control.settimeout(_ANSWER_SECONDS)

    @property
    def inherited_bytes(self) -> int:
        """Resident bytes that children inherit from the selected fork server."""
        return self._serving.resident_bytes

    def serve(self, *sources: str) -> None:
        """Select the fork server for the next execution of a program with these source texts."""
        if self._packaged and self._profile.wants_packages(*sources):
            self._serving = self._packaged
        else:
            self._serving = self._full if self._profile.wants_more(*sources) else self._light

    @property
    def control(self) -> int:
        """Descriptor that becomes readable when there is an `event`."""
        return self._serving.control.fileno()

    def start(self, limits: tuple[int, int, int, int, int], tokens: bytes, descriptors: tuple[int, ...]) -> None:
        """Fork a child.

        Args:
            limits: CPU seconds, memory, processes, threads, disk; memory and disk in bytes.
            tokens: See `evidence.Tokens`.
            descriptors: Standard input, output and error, the payload, and the channel.

        Raises:
            SlotLost: The fork server is gone.
        """
        self._send(forkserver.JOB.pack(forkserver.RUN, *limits, tokens), descriptors)

    def kill(self) -> None:
        """Kill the child and everything it started."""
        self._send(forkserver.KILL)

    def event(self) -> int | Ended:
        """Read the event that made `control` readable: the process id of a running child, or its end.

        Raises:
            SlotLost: The fork server is gone.
        """
        kind, pid, status, _, cpu, peak = self._receive()
        return pid if kind == forkserver.RUNNING else Ended(status, cpu / 1e6, peak)

    def _send(self, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(self._serving.control, [message], descriptors)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: lost the fork server: {error}") from error

    def _receive(self) -> tuple[int, ...]:
        try:
            data = self._serving.control.recv(forkserver.REASON_LIMIT)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: the fork server does not answer: {error}") from error
        if not data:
            raise SlotLost(f"slot {self.index}: the fork server ended")
        if len(data) != forkserver.EVENT.size:
            reason = data.decode("utf-8", "replace").strip()
            raise SlotLost(f"slot {self.index}: the fork server did not start: {reason}")
        return forkserver.EVENT.unpack(data)
