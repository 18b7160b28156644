"""One slot: a fork server of its own, which runs one program after another."""

import dataclasses
import marshal
import os
import socket
import subprocess
import sys
from typing import Any

from codealign.runner import forkserver, watch
from codealign.runner.profiles import Profile

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
    """What the slots of a box know of each other: resident bytes, and whose process is whose."""

    def __init__(self, box_bytes: int) -> None:
        """Begins with nothing noted.

        Args:
            box_bytes: The most that the whole box may use.
        """
        self._box_bytes = box_bytes
        self._idle_bytes = 0
        self._resident: dict[int, int] = {}
        self._servers: dict[int, int] = {}

    def idle(self) -> None:
        """To be called when every slot is ready and none works."""
        self._idle_bytes = watch.box_used_bytes()

    def serves(self, slot: int, pid: int) -> None:
        """`pid` is the fork server of `slot`."""
        self._servers[slot] = pid

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
        others = [pid for index, pid in self._servers.items() if index != slot]
        return watch.strays(os.getpid(), self._servers[slot], others)


class Slot:
    """A fork server and the socket to it.

    Attributes:
        index: Its number, from 0.
        ledger: Shared by the slots of a box.
        null: An open /dev/null.
        inherited_bytes: Resident bytes of the fork server, which its children begin with.
        own_user: Whether no other slot has its user.
    """

    def __init__(self, index: int, profile: Profile, ledger: Ledger, user: int | None) -> None:
        """Starts the fork server; `wait_ready` waits for it.

        Args:
            index: The slot's number.
            profile: What the fork server imports.
            ledger: Shared by the slots of a box.
            user: A user and group id for this slot alone, where the supervisor may give one: the kernel then
                counts its processes apart from other slots'. None: the supervisor's own.
        """
        self.index = index
        self.ledger = ledger
        self.inherited_bytes = 0
        self.own_user = user is not None
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # .../site/codealign/runner/slot.py
        site = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        script = [forkserver.__file__, site, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", *script, *profile.modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A program inherits this environment.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        ledger.serves(index, self._process.pid)

    def wait_ready(self) -> None:
        """Until the fork server has its modules.

        Raises:
            SlotLost: It did not start.
        """
        self._control.settimeout(_START_SECONDS)
        self._receive()
        self.inherited_bytes = watch.resident_bytes(self._process.pid)
        self._control.settimeout(_ANSWER_SECONDS)

    @property
    def control(self) -> int:
        """The descriptor that becomes readable when there is an `event`."""
        return self._control.fileno()

    def start(self, walls: tuple[int, int, int, int], descriptors: tuple[int, ...]) -> None:
        """Forks a child; see `forkserver` for the arguments.

        Raises:
            SlotLost: The fork server is gone.
        """
        self._send(("run", walls), descriptors)

    def kill(self) -> None:
        """Ends the child and everything that it started."""
        self._send(("kill",))

    def event(self) -> int | Ended:
        """What `control` became readable for: the process id of a child that runs, or its end.

        Raises:
            SlotLost: The fork server is gone.
        """
        kind, *values = self._receive()
        if kind == "running":
            return int(values[0])
        status, cpu, peak = values
        return Ended(int(status), float(cpu), int(peak))

    def _send(self, message: tuple[Any, ...], descriptors: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(self._control, [marshal.dumps(message)], descriptors)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: its fork server is gone: {error}") from error

    def _receive(self) -> tuple[Any, ...]:
        try:
            data = self._control.recv(forkserver.MESSAGE_LIMIT)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: its fork server does not answer: {error}") from error
        if not data:
            raise SlotLost(f"slot {self.index}: its fork server ended")
        return tuple(marshal.loads(data))
