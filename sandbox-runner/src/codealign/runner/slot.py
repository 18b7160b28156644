"""A slot with its fork servers, which runs one program at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

from codealign.runner import forkserver, watch
from codealign.runner.evidence import Tokens
from codealign.runner.profiles import LIGHT, PACKAGED, Profile
from codealign.runner.waits import Waits

# .../site/codealign/runner/slot.py
SITE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Directory where fork servers find the runner and its packages."""
HEAP, HEAPS = "_heap.so", "heaps"
"""Beside this file, if they were built: the library that arranges the memory of fork servers, and a folder with the
profile of each.
"""
_HERE = os.path.dirname(os.path.abspath(__file__))
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


class Server:
    """A fork server and the socket to it. Creating one starts it; `wait_ready` waits for it.

    Args:
        name: Its name, as in `Profile.servers`.
        modules: What it imports.
        user: See `Slot`.
        practises: See `practice`.
    """

    def __init__(self, name: str, modules: tuple[str, ...], user: int | None, *, practises: bool = False) -> None:
        self.name = name
        self.resident_bytes = 0
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = [forkserver.__file__, SITE, str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", *script, *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Programs inherit this environment, apart from the heap's part.
                env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | _heap(name, practises),
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    def wait_ready(self) -> None:
        """Wait until it has imported its modules.

        Raises:
            SlotLost: It did not start.
        """
        self.control.settimeout(_START_SECONDS)
        self._receive()
        self.resident_bytes = watch.resident_bytes(self.process.pid)
        self.control.settimeout(_ANSWER_SECONDS)

    def start(self, limits: tuple[int, int, int, int, int], tokens: Tokens, descriptors: tuple[int, ...]) -> None:
        """Fork a child.

        Args:
            limits: CPU seconds, memory, processes, threads, disk; memory and disk in bytes.
            tokens: Secrets of the execution.
            descriptors: Standard input, output and error, the payload, and the channel.

        Raises:
            SlotLost: The fork server is gone.
        """
        self._send(forkserver.JOB.pack(forkserver.RUN, *limits, tokens.channel, tokens.packed), descriptors)

    def kill(self) -> None:
        """Kill the child and everything it started.

        Raises:
            SlotLost: The fork server is gone.
        """
        self._send(forkserver.KILL)

    def event(self) -> int | Ended:
        """Wait for an event: the process id of a running child, or its end.

        Raises:
            SlotLost: The fork server is gone.
        """
        kind, pid, status, _, cpu, peak = self._receive()
        return pid if kind == forkserver.RUNNING else Ended(status, cpu / 1e6, peak)

    def _send(self, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(self.control, [message], descriptors)
        except OSError as error:
            raise SlotLost(f"lost the fork server: {error}") from error

    def _receive(self) -> tuple[int, ...]:
        try:
            data = self.control.recv(forkserver.REASON_LIMIT)
        except OSError as error:
            raise SlotLost(f"the fork server does not answer: {error}") from error
        if not data:
            raise SlotLost("the fork server ended")
        if len(data) != forkserver.EVENT.size:
            reason = data.decode("utf-8", "replace").strip()
            raise SlotLost(f"the fork server did not start: {reason}")
        return forkserver.EVENT.unpack(data)


def _heap(server: str, practises: bool) -> dict[str, str]:
    """Return the variables that arrange a fork server's memory, if there is a profile for it; see `heap.c`.

    The library forgets them before the interpreter sees them.
    """
    library, profile = os.path.join(_HERE, HEAP), os.path.join(_HERE, HEAPS, server)
    found = practises or (os.path.exists(library) and os.path.exists(profile))
    # Symbols are looked up at the start: later, each would write to the table of its library.
    return {"LD_PRELOAD": library, "LD_BIND_NOW": "1", "CODEALIGN_HEAP": profile} if found else {}


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
        self._servers = {name: Server(name, modules, user) for name, modules in profile.servers.items()}
        self._serving = self._servers[LIGHT]
        for server in self._servers.values():
            ledger.serves(index, server.process.pid)

    def wait_ready(self) -> None:
        """Wait until the fork servers have imported their modules.

        Raises:
            SlotLost: A fork server did not start.
        """
        for server in self._servers.values():
            try:
                server.wait_ready()
            except SlotLost as error:
                packages = ", ".join(self._profile.packages)
                advice = (
                    f" ({packages} installed for programs: reinstall or remove it)" if server.name == PACKAGED else ""
                )
                raise SlotLost(f"slot {self.index}: {error}{advice}") from None

    @property
    def inherited_bytes(self) -> int:
        """Resident bytes that children inherit from the selected fork server."""
        return self._serving.resident_bytes

    def serve(self, *sources: str) -> None:
        """Select the fork server for the next execution of a program with these source texts."""
        self._serving = self._servers[self._profile.server_of(*sources)]

    @property
    def control(self) -> int:
        """Descriptor that becomes readable when there is an `event`."""
        return self._serving.control.fileno()

    def start(self, limits: tuple[int, int, int, int, int], tokens: Tokens, descriptors: tuple[int, ...]) -> None:
        """See `Server.start`."""
        with self._named():
            self._serving.start(limits, tokens, descriptors)

    def kill(self) -> None:
        """See `Server.kill`."""
        with self._named():
            self._serving.kill()

    def event(self) -> int | Ended:
        """See `Server.event`."""
        with self._named():
            return self._serving.event()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except SlotLost as error:
            raise SlotLost(f"slot {self.index}: {error}") from error
