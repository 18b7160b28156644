"""One slot: a fork server of its own, which runs one program after another."""

import marshal
import os
import socket
import subprocess
import sys

from codealign.runner import forkserver, watch
from codealign.runner.profiles import Profile

_START_SECONDS = 60.0
_ANSWER_SECONDS = 10.0


class SlotLost(Exception):
    """The fork server is gone or does not answer: the runner is to be started anew."""


class Ledger:
    """Resident bytes of what runs in each slot, and the most that the whole box may use."""

    def __init__(self, box_bytes: int) -> None:
        self._box_bytes = box_bytes
        self._resident: dict[int, int] = {}

    def note(self, slot: int, resident: int) -> None:
        """What `slot` uses now."""
        self._resident[slot] = resident

    def must_yield(self, slot: int) -> bool:
        """Whether the box is over its limit and this slot holds the most of it."""
        if watch.box_used_bytes() <= self._box_bytes:
            return False
        return self._resident.get(slot, 0) >= max(self._resident.values(), default=0)


class Slot:
    """A fork server and the socket to it.

    Attributes:
        index: Its number, from 0.
        ledger: Shared by the slots of a box.
        null: An open /dev/null.
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

    def wait_ready(self) -> None:
        """Until the fork server has its modules.

        Raises:
            SlotLost: It did not start.
        """
        self._control.settimeout(_START_SECONDS)
        self._receive("ready")
        self._control.settimeout(_ANSWER_SECONDS)

    @property
    def control(self) -> int:
        """The descriptor that becomes readable when an execution has ended."""
        return self._control.fileno()

    def start(self, walls: tuple[int, int, int, int], descriptors: tuple[int, ...]) -> int:
        """Forks a child; see `forkserver` for the arguments.

        Returns:
            Its process id as the supervisor sees it.

        Raises:
            SlotLost: The fork server does not answer.
        """
        self._send(("run", walls), descriptors)
        (pid,) = self._receive("started")
        assert isinstance(pid, int)
        return pid

    def kill(self) -> None:
        """Ends the child and everything that it started."""
        self._send(("kill",))

    def ended(self) -> tuple[int, float, int]:
        """Wait status, CPU seconds and peak resident bytes of the child.

        Raises:
            SlotLost: The fork server does not answer.
        """
        status, cpu, peak = self._receive("ended")
        assert isinstance(status, int) and isinstance(cpu, float) and isinstance(peak, int)
        return status, cpu, peak

    def _send(self, message: tuple[object, ...], descriptors: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(self._control, [marshal.dumps(message)], descriptors)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: its fork server is gone: {error}") from error

    def _receive(self, expected: str) -> tuple[object, ...]:
        try:
            data = self._control.recv(forkserver.MESSAGE_LIMIT)
        except OSError as error:
            raise SlotLost(f"slot {self.index}: its fork server does not answer: {error}") from error
        if not data:
            raise SlotLost(f"slot {self.index}: its fork server ended")
        message = marshal.loads(data)
        if message[0] != expected:
            raise SlotLost(f"slot {self.index}: expected {expected}, got {message[0]}")
        return tuple(message[1:])
