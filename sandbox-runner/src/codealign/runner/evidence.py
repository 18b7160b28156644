"""What was seen of one execution: the ground of its verdict."""

import dataclasses
import enum
import hmac

from codealign.runner import witness
from codealign.runner.instrument import Kind


class Cause(enum.Enum):
    """Why the supervisor killed an execution."""

    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    OUTPUT = "output"
    PROCESSES = "processes"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """One message of the harness, its digest proved."""

    kind: Kind
    number: int
    executed: int
    line: int
    flags: int
    text: bytes

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """Of an exception: which limit it tells of, its type, its source, its message."""
        parts = self.text.decode("utf-8", "replace").split("\0", 3)
        limit, kind, source, message = (*parts, "", "", "", "")[:4]
        return limit, kind, source, message


def parse_report(packet: bytes, key: bytes) -> Report | None:
    """The report in a packet; None when whoever sent it does not have the key."""
    message, proof = packet[: -witness.DIGEST_SIZE], packet[-witness.DIGEST_SIZE :]
    header = witness.HEADER
    if len(message) < header.size + 1 or not hmac.compare_digest(proof, witness.digest(message, key)):
        return None
    kind, number, executed, line = header.unpack_from(message)
    if kind not in set(Kind):
        return None
    return Report(Kind(kind), number, executed, line, message[header.size], message[header.size + 1 :])


@dataclasses.dataclass(slots=True)
class Evidence:
    """One execution, from its start to the death of its last process."""

    reports: list[Report] = dataclasses.field(default_factory=list)
    forged: int = 0
    """Packets on the witness's channel that were not the witness's."""
    killed_for: Cause | None = None
    exit_code: int | None = None
    signal: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    stdout: bytes = b""
    stdout_total: int = 0
    stderr: bytes = b""
    stderr_total: int = 0

    def report(self, kind: Kind) -> Report | None:
        """The first report of a kind, if there is one."""
        return next((report for report in self.reports if report.kind is kind), None)
