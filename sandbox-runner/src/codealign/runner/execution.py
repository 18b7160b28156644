"""Monitors one run of one program: its pipes, its time limit, and its resource usage."""

from __future__ import annotations

import dataclasses
import marshal
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping

from codealign.runner import sources, streams, watch
from codealign.runner.evidence import Cause, Evidence, Tokens
from codealign.runner.profiles import TIME_FACTOR, Limits
from codealign.runner.slot import Ended, Slot, SlotLost
from codealign.runner.waits import Clock

_LOOK = 0.05
"""Seconds between two readings of /proc."""
_LATE = 0.1
"""Seconds past a deadline before this loop counts as late. If it is late, nothing in the sandbox had a processor."""
_DEATH_SECONDS = 10.0
_REPORTS_LIMIT = 64
"""Maximum packets read from the channel. At most three are reports; the rest come from the program."""


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """The parts of a request needed for one run."""

    code: str
    tests: str = ""
    stdin: bytes = b""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    compare: bool = False
    """Standard output will be compared, so all of it is kept."""

    @property
    def sources(self) -> list[str]:
        """All source text that may contain imports, including the program's own modules."""
        modules = (content for path, content in self.files.items() if path.endswith(".py"))
        return [self.code, self.tests, *(content.decode("utf-8", "replace") for content in modules)]

    @property
    def needs_file(self) -> bool:
        """Whether the code must be a file. Its modules can run in other interpreters too, and import it there."""
        return sources.needs_file(*self.sources)


def execute(slot: Slot, program: Program, limits: Limits, cancelled: threading.Event) -> Evidence:
    """Run a program once, in a fresh set of namespaces.

    Returns:
        What was observed. No process of the program is left when this returns.

    Raises:
        SlotLost: The fork server failed, so nothing is known about the program.
    """
    slot.ledger.waits.begin(slot.index)
    execution = _Execution(slot, program, limits, cancelled)
    try:
        return execution.run()
    finally:
        execution.close()
        slot.ledger.note(slot.index, 0)
        slot.ledger.waits.end(slot.index)


class _Execution:
    def __init__(self, slot: Slot, program: Program, limits: Limits, cancelled: threading.Event) -> None:
        self._slot, self._limits, self._cancelled = slot, limits, cancelled
        self._tokens = Tokens()
        request = {
            "code": program.code,
            "tests": program.tests,
            "files": dict(program.files),
            "path": sources.path_beside(program.files),
            "is_file": program.needs_file,
        }
        self._feeds = [streams.Feed(marshal.dumps(request))]
        if program.stdin:
            self._feeds.append(streams.Feed(program.stdin))
        keep = limits.output_kill_bytes if program.compare else limits.output_bytes
        self._stdout, self._stderr = streams.Drain(keep), streams.Drain(limits.output_bytes)
        self._channel, self._program_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        slot.serve(*program.sources)
        self._poll = select.poll()
        self._seen = Evidence()
        self._packets = 0
        self._listening = True
        self._late_seconds = 0.0
        self._pid = 0
        self._end: Ended | None = None

    def run(self) -> Evidence:
        started = time.monotonic()
        self._start()
        clock = Clock(started, self._limits.wall_seconds)
        look = started
        # There is nothing to measure before the fork server reports that the program runs.
        while not self._step(until := min(look, clock.deadline) if self._pid else clock.deadline):
            now = time.monotonic()
            if now > until + _LATE:
                self._late_seconds += now - until
            clock.stop_for(self._stalled())
            if now >= clock.deadline and self._seen.killed_for is None:
                self._kill(Cause.WALL)
            if self._seen.killed_for is not None:
                self._await_death()
                break
            if now >= look and self._pid:
                self._look(now - started)
                look = now + _LOOK
        self._seen.wall_seconds = time.monotonic() - started
        self._seen.stalled_seconds = min(clock.stalled, self._seen.wall_seconds)
        self._finish()
        return self._seen

    def _stalled(self) -> float:
        """Return the seconds not to count: those reported from outside, or this loop's own delay, which shows first."""
        return max(self._slot.ledger.waits.stalled(self._slot.index), self._late_seconds)

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
        # The kernel counts threads and processes together, per user. Where slots share a user, these limits are coarse
        # and `_look` enforces the exact ones.
        tasks = (limits.processes + self._slot.neighbours, limits.threads + self._slot.neighbours)
        # `_look` enforces the CPU time limit. gVisor counts every thread that is ready, also those without a processor,
        # so its own limit only bounds what could be consumed if `_look` got no processor for long.
        cpu_seconds = -int(-limits.cpu_seconds * TIME_FACTOR * limits.threads // 1)
        kernel_limits = (cpu_seconds, limits.memory_bytes, *tasks, limits.disk_bytes)
        try:
            self._slot.start(kernel_limits, self._tokens, given)
        finally:
            self._program_channel.detach()
            for descriptor in given:
                if descriptor != self._slot.null:
                    os.close(descriptor)
        self._poll.register(self._slot.control, select.POLLIN)
        for feed in self._feeds:
            if feed.open:
                self._poll.register(feed.descriptor, select.POLLOUT)

    def _listen(self) -> None:
        """Read what the program writes while it runs.

        Not from the start: most programs have ended before the fork server reports that they run. What they wrote is
        read once at the end, without a wake-up for each pipe. One that fills a pipe earlier waits for the report.
        """
        for descriptor in (self._stdout.descriptor, self._stderr.descriptor, self._channel):
            self._poll.register(descriptor, select.POLLIN)

    def _step(self, until: float) -> bool:
        """Wait for an event, at most until the given time. Return True when the execution has ended."""
        timeout = max(0.0, until - time.monotonic())
        for descriptor, _ in self._poll.poll(timeout * 1000 + 1):
            if descriptor == self._slot.control:
                self._take_event()
            elif descriptor == self._channel.fileno():
                self._take_report()
            else:
                self._move(descriptor)
        if self._wrote_too_much:
            self._kill(Cause.OUTPUT)
        if self._cancelled.is_set():
            self._kill(Cause.CANCELLED)
        return self._end is not None

    @property
    def _wrote_too_much(self) -> bool:
        return self._stdout.total + self._stderr.total > self._limits.output_kill_bytes

    def _take_event(self) -> None:
        event = self._slot.event()
        if isinstance(event, Ended):
            self._end = event
        else:
            self._pid = event
            self._listen()

    def _await_death(self) -> None:
        """Keep draining the pipes until the fork server reports the end."""
        give_up = time.monotonic() + _DEATH_SECONDS
        while not self._step(give_up):
            if time.monotonic() >= give_up:
                raise SlotLost(f"slot {self._slot.index}: an execution does not terminate after being killed")

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
        """Read one packet. Return False if there is none."""
        try:
            packet = self._channel.recv(8192)
        except BlockingIOError:
            return False
        except OSError:
            packet = b""
        self._packets += 1
        if not packet or self._packets > _REPORTS_LIMIT:
            self._listening = False
            if self._pid:
                self._poll.unregister(self._channel)
            return False
        report = self._tokens.report(packet)
        if report is None:
            self._seen.forged += 1
        else:
            self._seen.reports.append(report)
        return True

    def _kill(self, cause: Cause) -> None:
        if self._seen.killed_for is None:
            self._seen.killed_for = cause
            self._slot.kill()

    def _look(self, elapsed: float) -> None:
        slot, limits = self._slot, self._limits
        usage = watch.usage(self._pid, slot.inherited_bytes, elapsed)
        slot.ledger.note(slot.index, usage.resident_bytes)
        slot.ledger.waits.note(slot.index, usage.cpu_seconds)
        self._seen.cpu_seconds = max(self._seen.cpu_seconds, usage.cpu_seconds)
        cpu_seconds = usage.cpu_seconds - slot.ledger.waits.waited(slot.index)
        # If several limits are exceeded, report the contract's first one: a thousand forks exceed all of them.
        if slot.ledger.is_over(slot.index, limits.memory_bytes):
            self._kill(Cause.MEMORY)
        elif usage.processes > limits.processes:
            self._kill(Cause.PROCESSES)
        elif usage.threads > limits.threads:
            self._kill(Cause.THREADS)
        elif cpu_seconds > limits.cpu_seconds or usage.cpu_seconds > limits.cpu_seconds * TIME_FACTOR:
            self._kill(Cause.CPU)

    def _await_empty(self) -> None:
        """Wait until all processes are gone. They die with process 1 of their namespace, but not all at once."""
        give_up = time.monotonic() + _DEATH_SECONDS
        while strays := self._slot.ledger.strays(self._slot.index):
            if time.monotonic() > give_up:
                raise SlotLost(f"slot {self._slot.index}: processes {strays} survived an execution")
            time.sleep(0.001)

    def _finish(self) -> None:
        """Collect the remaining output and reports once no process of the program is alive."""
        seen, end = self._seen, self._end
        assert end is not None
        self._await_empty()
        code = os.waitstatus_to_exitcode(end.status)
        if code >= 0:
            seen.exit_code = code
        else:
            seen.signal = -code
        seen.cpu_seconds = max(seen.cpu_seconds, min(end.cpu_seconds, seen.wall_seconds * watch.PROCESSORS))
        seen.peak_memory_bytes = end.peak_bytes
        by_kernel = seen.killed_for is None and seen.signal in (signal.SIGXCPU, signal.SIGKILL)
        if by_kernel and seen.cpu_seconds >= self._limits.cpu_seconds:
            seen.killed_for = Cause.CPU
        seen.cpu_seconds -= self._slot.ledger.waits.waited(self._slot.index)
        while self._listening and self._take_report():
            pass
        for drain in (self._stdout, self._stderr):
            drain.empty()
        if self._wrote_too_much and seen.killed_for is None:
            seen.killed_for = Cause.OUTPUT
        seen.stdout, seen.stdout_total = bytes(self._stdout.kept), self._stdout.total
        seen.stderr, seen.stderr_total = bytes(self._stderr.kept), self._stderr.total
