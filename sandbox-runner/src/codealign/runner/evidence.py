"""Evidence collected during one execution, from which the verdict is derived."""

from __future__ import annotations

import dataclasses
import enum
import hmac
import secrets
import struct

from codealign.runner.reports import Flag, Kind

TOKEN = 16
"""Length of a token in bytes."""
_HEADER = struct.Struct("=16sBB2xII")
"""Token, kind, flags, assertions executed, line; followed by a text."""
_MOST = (1 << 31) - 1
"""Largest number in a result. The line is that of a traceback, in which a program may put any number."""


class Cause(enum.Enum):
    """Reason why the supervisor killed an execution."""

    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    OUTPUT = "output"
    PROCESSES = "processes"
    THREADS = "threads"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A message from the witness beside the program, with a verified token."""

    kind: Kind
    executed: int
    line: int
    flags: Flag
    text: bytes = b""

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """Fields of an exception report: the limit it indicates, its type, its source, and its message."""
        parts = self.text.decode("utf-8", "replace").split("\0", 3)
        limit, kind, source, message = (*parts, "", "", "", "")[:4]
        return limit, kind, source, message


class Tokens:
    """Secrets of one execution: one random token for each kind of report, required to send that report.

    Attributes:
        packed: All tokens, in the order of `Kind`.
        channel: Lowest number of the channel's descriptor in the program's process.
    """

    def __init__(self) -> None:
        drawn = secrets.token_bytes(TOKEN * len(Kind) + 1)
        self.packed, self.channel = drawn[:-1], 128 + drawn[-1] % 100
        self._tokens = {kind: drawn[TOKEN * index : TOKEN * (index + 1)] for index, kind in enumerate(Kind)}

    def report(self, packet: bytes) -> Report | None:
        """Return the report in a packet, or None if the packet does not carry a valid token."""
        if len(packet) < _HEADER.size:
            return None
        token, number, flags, executed, line = _HEADER.unpack_from(packet)
        if number not in set(Kind) or not hmac.compare_digest(token, self._tokens[Kind(number)]):
            return None
        line = line if line <= _MOST else 0
        return Report(Kind(number), min(executed, _MOST), line, Flag(flags), packet[_HEADER.size :])


@dataclasses.dataclass(slots=True)
class Evidence:
    """Observations of one execution, from its start to the death of its last process."""

    reports: list[Report] = dataclasses.field(default_factory=list)
    forged: int = 0
    """Packets on the channel without a valid token."""
    killed_for: Cause | None = None
    exit_code: int | None = None
    signal: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    stalled_seconds: float = 0.0
    peak_memory_bytes: int = 0
    stdout: bytes = b""
    stdout_total: int = 0
    stderr: bytes = b""
    stderr_total: int = 0

    def report(self, kind: Kind) -> Report | None:
        """Return the first report of a kind, or None."""
        return next((report for report in self.reports if report.kind is kind), None)
