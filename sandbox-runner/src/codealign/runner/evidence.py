"""What was seen of one execution: the ground of its verdict."""

from __future__ import annotations

import dataclasses
import enum
import hmac
import secrets
import struct

from codealign.runner.reports import Flag, Kind

TOKEN = 16
"""Bytes."""
_HEADER = struct.Struct("=16sBB2xII")
"""Token, kind, flags, assertions executed, line; a text follows."""


class Cause(enum.Enum):
    """Why the supervisor killed an execution."""

    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    OUTPUT = "output"
    PROCESSES = "processes"
    THREADS = "threads"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """One message from beside the program, its token proved."""

    kind: Kind
    executed: int
    line: int
    flags: Flag
    text: bytes = b""

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """Of an exception: which limit it tells of, its type, its source, its message."""
        parts = self.text.decode("utf-8", "replace").split("\0", 3)
        limit, kind, source, message = (*parts, "", "", "", "")[:4]
        return limit, kind, source, message


class Tokens:
    """Secrets of one execution: whoever sends the token of a kind of report has the right to that report."""

    def __init__(self) -> None:
        """Draws them."""
        self._tokens = {kind: secrets.token_bytes(TOKEN) for kind in Kind}
        self.packed = b"".join(self._tokens.values())

    def report(self, packet: bytes) -> Report | None:
        """The report in a packet; None when whoever sent it did not have its token."""
        if len(packet) < _HEADER.size:
            return None
        token, number, flags, executed, line = _HEADER.unpack_from(packet)
        if number not in set(Kind) or not hmac.compare_digest(token, self._tokens[Kind(number)]):
            return None
        return Report(Kind(number), executed, line, Flag(flags), packet[_HEADER.size :])


@dataclasses.dataclass(slots=True)
class Evidence:
    """One execution, from its start to the death of its last process."""

    reports: list[Report] = dataclasses.field(default_factory=list)
    forged: int = 0
    """Packets on the channel that came from elsewhere."""
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
        """The first report of a kind, if there is one."""
        return next((report for report in self.reports if report.kind is kind), None)
