"""The loop that watches one run of one program: its pipes, its clock, what it uses."""

import dataclasses
import marshal
import os
import secrets
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping

from codealign.runner import evidence, streams, watch
from codealign.runner.evidence import Cause, Evidence
from codealign.runner.profiles import Limits
from codealign.runner.slot import Slot, SlotLost

_FIRST_LOOK, _LOOK = 0.03, 0.05
"""Seconds from the start to the first reading of /proc, and between readings: most programs end before one."""
_DEATH_SECONDS = 10.0
_REPORTS_LIMIT = 64
"""Packets taken from the witness's channel; it sends three at most, so the rest are a program's own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """What one run needs of a request."""

    code: str
    tests: str = ""
    stdin: bytes = b""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    compare: bool = False
    """Standard output will be compared, so all of it is kept."""


def execute(slot: Slot, program: Program, limits: Limits, cancelled: threading.Event) -> Evidence:
    """Runs a program once, in a fresh set of namespaces.

    Returns:
        What was seen. No process of the program is left when this returns.

    Raises:
        SlotLost: The fork server failed: nothing is known of the program.
    """
    execution = _Execution(slot, program, limits, cancelled)
    try:
        return execution.run()
    finally:
        execution.close()
        slot.ledger.note(slot.index, 0)


class _Execution:
    def __init__(self, slot: Slot, program: Program, limits: Limits, cancelled: threading.Event) -> None:
        self._slot, self._limits, self._cancelled = slot, limits, cancelled
        self._key = secrets.token_bytes(32)
        request = {"key": self._key, "code": program.code, "tests": program.tests, "files": dict(program.files)}
        self._feeds = [streams.Feed(marshal.dumps(request))]
        if program.stdin:
            self._feeds.append(streams.Feed(program.stdin))
        keep = limits.output_kill_bytes if program.compare else limits.output_bytes
        self._stdout, self._stderr = streams.Drain(keep), streams.Drain(limits.output_bytes)
        self._channel, self._program_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        self._poll = select.poll()
        self._seen = Evidence()
        self._packets = 0
        self._listening = True
        self._pid = 0

    def run(self) -> Evidence:
        self._start()
        started = time.monotonic()
        deadline = started + self._limits.wall_seconds
        look = started + _FIRST_LOOK
        while not self._step(min(look, deadline)):
            now = time.monotonic()
            if now >= deadline and self._seen.killed_for is None:
                self._kill(Cause.WALL)
            if self._seen.killed_for is not None:
                self._await_death()
                break
            if now >= look:
                self._look()
                look = now + _LOOK
        self._seen.wall_seconds = time.monotonic() - started
        self._finish()
        return self._seen

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()
        self._stdout.close()
        self._stderr.close()
        self._channel.close()

    def _start(self) -> None:
        limits = self._limits
        stdin = self._feeds[1].program_end if len(self._feeds) > 1 else self._slot.null
        given = (
            stdin,
            self._stdout.program_end,
            self._stderr.program_end,
            self._feeds[0].program_end,
            self._program_channel.fileno(),
        )
        # One process more: the kernel counts the fork server, which has the same user.
        walls = (-int(-limits.cpu_seconds // 1), limits.memory_bytes, limits.processes + 1, limits.disk_bytes)
        try:
            self._pid = self._slot.start(walls, given)
        finally:
            self._program_channel.detach()
            for descriptor in given:
                if descriptor != self._slot.null:
                    os.close(descriptor)
        for descriptor in (self._slot.control, self._stdout.descriptor, self._stderr.descriptor):
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._channel, select.POLLIN)
        for feed in self._feeds:
            if feed.open:
                self._poll.register(feed.descriptor, select.POLLOUT)

    def _step(self, until: float) -> bool:
        """Waits for something to happen, at most until then. True: the execution has ended."""
        timeout = max(0.0, until - time.monotonic())
        ended = False
        for descriptor, _ in self._poll.poll(timeout * 1000 + 1):
            if descriptor == self._slot.control:
                ended = True
            elif descriptor == self._channel.fileno():
                self._take_report()
            else:
                self._move(descriptor)
        if self._stdout.total + self._stderr.total > self._limits.output_kill_bytes:
            self._kill(Cause.OUTPUT)
        if self._cancelled.is_set():
            self._kill(Cause.CANCELLED)
        return ended

    def _await_death(self) -> None:
        """Keeps the pipes moving until the fork server has seen the end."""
        give_up = time.monotonic() + _DEATH_SECONDS
        while not self._step(give_up):
            if time.monotonic() >= give_up:
                raise SlotLost(f"slot {self._slot.index}: an execution does not die")

    def _move(self, descriptor: int) -> None:
        for drain in (self._stdout, self._stderr):
            if descriptor == drain.descriptor:
                drain.read()
                if not drain.open:
                    self._poll.unregister(descriptor)
        for feed in self._feeds:
            if feed.open and descriptor == feed.descriptor:
                feed.write()
                if not feed.open:
                    self._poll.unregister(descriptor)

    def _take_report(self) -> bool:
        """One packet; False when there is none."""
        try:
            packet = self._channel.recv(8192)
        except BlockingIOError:
            return False
        except OSError:
            packet = b""
        self._packets += 1
        if not packet or self._packets > _REPORTS_LIMIT:
            self._listening = False
            self._poll.unregister(self._channel)
            return False
        report = evidence.parse_report(packet, self._key)
        if report is None:
            self._seen.forged += 1
        else:
            self._seen.reports.append(report)
        return True

    def _kill(self, cause: Cause) -> None:
        if self._seen.killed_for is None:
            self._seen.killed_for = cause
            self._slot.kill()

    def _look(self) -> None:
        usage = watch.usage(self._pid)
        self._slot.ledger.note(self._slot.index, usage.resident_bytes)
        self._seen.cpu_seconds = max(self._seen.cpu_seconds, usage.cpu_seconds)
        if usage.cpu_seconds > self._limits.cpu_seconds:
            self._kill(Cause.CPU)
        elif usage.resident_bytes > self._limits.memory_bytes or self._slot.ledger.must_yield(self._slot.index):
            self._kill(Cause.MEMORY)

    def _finish(self) -> None:
        """Takes what is left. The death of process 1 has ended every holder of the other ends."""
        seen = self._seen
        status, cpu, peak = self._slot.ended()
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            seen.exit_code = code
        else:
            seen.signal = -code
        seen.cpu_seconds = max(seen.cpu_seconds, cpu)
        seen.peak_memory_bytes = peak
        if seen.killed_for is None and seen.signal in (signal.SIGXCPU, signal.SIGKILL):
            if seen.cpu_seconds >= self._limits.cpu_seconds:
                seen.killed_for = Cause.CPU
        while self._listening and self._take_report():
            pass
        for drain in (self._stdout, self._stderr):
            drain.empty()
        seen.stdout, seen.stdout_total = bytes(self._stdout.kept), self._stdout.total
        seen.stderr, seen.stderr_total = bytes(self._stderr.kept), self._stderr.total
