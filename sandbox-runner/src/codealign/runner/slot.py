"""One slot: a fork server of its own, which runs one program after another."""

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
"""Where fork servers find the runner, and packages."""
_START_SECONDS = 60.0
_ANSWER_SECONDS = 10.0


class SlotLost(Exception):
    """The fork server is gone or does not answer: the runner is to be started anew."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """The end of an execution's first process, and so of all of them."""

    status: int
    """As wait(2) gives it."""
    cpu_seconds: float
    peak_bytes: int


class Ledger:
    """What the slots of a box know of each other: resident bytes, and whose process is whose.

    Attributes:
        waits: How long their executions had no processor.
    """

    def __init__(self, box_bytes: int) -> None:
        """Begins with nothing noted.

        Args:
            box_bytes: The most that the whole box may use.
        """
        self.waits = Waits()
        self._box_bytes = box_bytes
        self._idle_bytes = 0
        self._resident: dict[int, int] = {}
        self._servers: dict[int, set[int]] = {}

    def idle(self) -> None:
        """To be called when every slot is ready and none works."""
        self._idle_bytes = watch.box_used_bytes()

    def serves(self, slot: int, pid: int) -> None:
        """`pid` is a fork server of `slot`."""
        self._servers.setdefault(slot, set()).add(pid)

    def note(self, slot: int, resident: int) -> None:
        """What the execution in `slot` uses now."""
        self._resident[slot] = resident

    def is_over(self, slot: int, memory_bytes: int) -> bool:
        """Whether the execution in `slot` must be killed for memory, by what was noted last.

        Pages that its processes share are counted for each of them, so the whole box must have grown by as much.
        """
        used, own = watch.box_used_bytes(), self._resident[slot]
        if own > memory_bytes and used - self._idle_bytes > memory_bytes:
            return True
        return used > self._box_bytes and own >= max(self._resident.values())

    def strays(self, slot: int) -> set[int]:
        """Processes that neither belong to the box nor to another slot's execution."""
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
                # A program inherits this environment.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        self.resident_bytes = 0


class Slot:
    """A light fork server, one with more modules and, where the profile has packages, one with these too.

    It runs one execution at a time.

    Attributes:
        index: Its number, from 0.
        ledger: Shared by the slots of a box.
        null: An open /dev/null.
        neighbours: Processes and threads of its user that are not its own, at most. 0: it has a user of its own.
    """

    def __init__(self, index: int, profile: Profile, ledger: Ledger, user: int | None) -> None:
        """Starts the fork servers; `wait_ready` waits for them.

        Args:
            index: The slot's number.
            profile: What the fork servers import.
            ledger: Shared by the slots of a box.
            user: A user and group id for this slot alone, where the supervisor may give one: the kernel then
                counts its processes apart from other slots'. None: the supervisor's own.
        """
        self.index = index
        self.ledger = ledger
        self.neighbours = 0
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._profile = profile
        self._light = _Server(profile.modules, user)
        self._full = _Server((*profile.modules, *profile.more), user)
        self._servers = [self._light, self._full]
        if profile.packages:
            self._servers.append(_Server((*profile.modules, *profile.more, *profile.packaged), user))
        self._serving = self._light
        for server in self._servers:
            ledger.serves(index, server.process.pid)

    def wait_ready(self) -> None:
        """Until the fork servers have their modules.

        Raises:
            SlotLost: One did not start.
        """
        for server in self._servers:
            self._serving = server
            server.control.settimeout(_START_SECONDS)
            self._receive()
            server.resident_bytes = watch.resident_bytes(server.process.pid)
            server.control.settimeout(_ANSWER_SECONDS)

    @property
    def inherited_bytes(self) -> int:
        """Resident bytes of the fork server that serves, which its children begin with."""
        return self._serving.resident_bytes

    def serve(self, profile: str, *sources: str) -> None:
        """Chooses the fork server for a program's next execution.

        Args:
            profile: The name of the request's. Packages can be imported only in the profile that has them.
            sources: The program's text.
        """
        if profile == self._profile.name and self._profile.wants_packages(*sources):
            self._serving = self._servers[-1]
        else:
            self._serving = self._full if self._profile.wants_more(*sources) else self._light

    @property
    def control(self) -> int:
        """The descriptor that becomes readable when there is an `event`."""
        return self._serving.control.fileno()

    def start(self, walls: tuple[int, int, int, int, int], tokens: bytes, descriptors: tuple[int, ...]) -> None:
        """Forks a child.

        Args:
            walls: CPU seconds, memory, processes, threads, disk; memory and disk in bytes.
            tokens: See `evidence.Tokens`.
            descriptors: Standard input, output and error, the payload, and the channel.

        Raises:
            SlotLost: The fork server is gone.
        """
        self._send(forkserver.JOB.pack(forkserver.RUN, *walls, tokens), descriptors)

    def kill(self) -> None:
        """Ends the child and everything that it started."""
        self._send(forkserver.KILL)

    def event(self) -> int | Ended:
        """What `control` became readable for: the process id of a child that runs, or its end.

        Raises:
            SlotLost: The fork server is gone.
        """
        kind, pid, status, _, cpu, peak = self._receive()
        return pid if kind == forkserver.RUNNING else Ended(status, cpu / 1e6, peak)

    def _send(self, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(self._serving.control, [message], descriptors)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: its fork server is gone: {error}") from error

    def _receive(self) -> tuple[int, ...]:
        try:
            data = self._serving.control.recv(forkserver.EVENT.size)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: its fork server does not answer: {error}") from error
        if not data:
            raise SlotLost(f"slot {self.index}: its fork server ended")
        return forkserver.EVENT.unpack(data)
