"""Executes mutants of one answer with its tests, and observes those that pass. Runs in the sandbox.

Standard library only, and of it only what every execution needs. Executed after `forms.py` and `observer.py`, in the
same namespace. See `agreement/batching.py` for the rules.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from codealign.coordinator.agreement.in_sandbox.observer import observe

_SPARE_BYTES = 64 << 20
"""Memory that a child may not have, since its parent's counts too."""
_MOST_TOLD = 1 << 20
"""Bytes that a program may print."""
_REAP_SECONDS, _LOOK_SECONDS = 0.0005, 1.0
_BEGUN, _PASSED, _FAILED, _MEMORY, _OBSERVED = "begun", "passed", "failed", "memory", "observed"
_LOST_STATUS = 3


class _Program:
    """What a child has told of one program."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.fate = ""
        """Empty: not told."""
        self.lines: list[bytes] = []
        """Of the observer."""
        self.is_observed = False
        self.printed = 0
        """Bytes that the child wrote since the program began."""


class _Batch:
    """Program 0 is the answer itself, the others are its mutants."""

    def __init__(self, names: dict[str, Any], asked: dict[str, Any]) -> None:
        self._names, self._asked = names, asked
        self._pristine = {name: value for name, value in names.items() if not name.startswith("_codealign")}
        self._path = str(names.get("__file__", "solution.py"))
        self._markers = [f"{each} ".encode() for each in asked["markers"]]
        self._room: int = asked["output_bytes"]
        self._memory = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        self._less_memory = soft if soft == resource.RLIM_INFINITY else max(soft - _SPARE_BYTES, 0), hard
        self._already = 0.0
        """CPU seconds before the current child."""
        self._child = 0
        """Process id of the child, in the child."""
        self._began, self._spent = time.monotonic(), self._cpu_seconds()

    def lines(self) -> Iterator[bool]:
        """Execute all programs, as long as there is time; True for each child that has ended."""
        # Otherwise the first collection in each child would copy the memory of all objects.
        gc.freeze()
        first = 0
        while first < len(self._markers) and not (first and self._is_late()):
            last = self._from(first)
            yield True
            if last.number == 0 and last.fate != _PASSED:
                return
            first = last.number + 1
        os.write(1, b"\n" + self._markers[0] + b'["end"]\n')

    def _from(self, first: int) -> _Program:
        """Execute programs in one child until all are done or the child ends; return the last one that was begun."""
        told, cause, ended, _ = self._in_child(first, len(self._markers))
        if told.fate == _PASSED and told.number and ended and self._asked["observed"]:
            told.is_observed = True  # as far as it came before a call ended the child
        if not told.fate:
            told.fate = cause or ended or "lost"
            if told.fate == "timed out" and told.number and not self._is_quick():
                told.fate = "slow"
        self._write(told)
        return told

    def _is_quick(self) -> bool:
        """Execute the answer again and return whether it passes quickly. If not, the machine is slow, perhaps."""
        told, _, _, seconds = self._in_child(0, 1)
        most: float = self._asked["seconds"] / self._asked["factor"]
        return told.fate == _PASSED and seconds <= most

    def _is_late(self) -> bool:
        limit: float = self._asked["total_seconds"]
        return self._cpu_seconds() - self._spent > limit or time.monotonic() - self._began > 2 * limit

    def _cpu_seconds(self) -> float:
        return sum(os.times()[:4])

    # In the child.

    def _execute(self, first: int, end: int, descriptor: int) -> None:
        self._child = os.getpid()
        for number in range(first, end):
            self._tell(number, descriptor, _BEGUN)
            fate = self._tested(number)
            self._tell(number, descriptor, fate)
            if not number and fate != _PASSED:
                return
            if number and fate == _PASSED and self._asked["observed"]:
                self._observe(number)
                self._tell(number, descriptor, _OBSERVED)
            # The next one begins only where the answer itself still passes.
            late = self._already + time.process_time() > self._asked["total_seconds"]
            if late or fate == _MEMORY or (number and number + 1 < end and self._tested(0) != _PASSED):
                return

    def _tested(self, number: int) -> str:
        """Execute a program with the tests."""
        for ring in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(ring, signal.SIG_DFL)  # the observer has handlers
        signal.setitimer(signal.ITIMER_PROF, self._asked["seconds"])
        try:
            self._load(number)
            exec(compile(self._asked["tests"], "<tests>", "exec", dont_inherit=True), self._names)  # noqa: S102
            told = _PASSED
        except BaseException as error:
            told = _MEMORY if issubclass(type(error), MemoryError) else _FAILED
        signal.setitimer(signal.ITIMER_PROF, 0)
        return told

    def _observe(self, number: int) -> None:
        self._load(number)
        asked = {**self._asked["observed"], "marker": self._markers[number].decode().rstrip()}
        for _written in observe(self._names, json.dumps(asked).encode().hex()):
            pass

    def _load(self, number: int) -> None:
        """Execute a program's code as the sandbox does, in the module of this program."""
        self._names.clear()
        self._names.update(self._pristine, __name__="solution")
        exec(compile(self._code(number), self._path, "exec", dont_inherit=True), self._names)  # noqa: S102
        self._names["__name__"] = "__main__"

    def _code(self, number: int) -> str:
        code: str = self._asked["code"]
        if not number:
            return code
        start, end, text = self._asked["mutants"][number - 1]
        return code[:start] + str(text) + code[len(code) - end :]

    def _tell(self, number: int, descriptor: int, what: str) -> None:
        if os.getpid() != self._child:
            os._exit(_LOST_STATUS)  # a program has forked
        # Telling what a MemoryError was must not fail for the same reason.
        resource.setrlimit(resource.RLIMIT_AS, self._memory if what != _BEGUN else self._less_memory)
        os.write(descriptor, b"\n" + self._markers[number] + json.dumps(what).encode() + b"\n")

    def _confine(self, descriptor: int) -> None:
        for number in (1, 2):
            os.dup2(descriptor, number)
        # Alone, the program would be on the lowest frame.
        frame: Any = sys._getframe()
        while frame is not None:
            sys.setrecursionlimit(sys.getrecursionlimit() + 1)
            frame = frame.f_back

    # In the parent.

    def _in_child(self, first: int, end: int) -> tuple[_Program, str, str, float]:
        """Execute programs in a child.

        Returns:
            The last program that was begun, why the child was killed, how it ended by itself, and its CPU seconds.
        """
        reading, writing = os.pipe()
        self._already = self._cpu_seconds() - self._spent
        pid = os.fork()
        if not pid:
            try:
                os.setpgid(0, 0)
                os.close(reading)
                self._confine(writing)
                self._execute(first, end, writing)
                os._exit(0)
            finally:
                os._exit(_LOST_STATUS)
        os.close(writing)
        told = _Program(first)
        try:
            told, cause, deadline = self._take(reading, pid, told)
        finally:
            os.close(reading)
        cause, ended, seconds = self._reap(pid, cause, deadline)
        self._end_if_not_alone()
        return told, cause, ended, seconds

    def _take(self, reading: int, pid: int, told: _Program) -> tuple[_Program, str, float]:
        """Take what a child writes until it ends.

        Returns:
            The last program that was begun, why the child must be killed, and when its time is up.
        """
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        deadline, rest, begun = time.monotonic() + self._asked["wait_seconds"], b"", False
        while (left := deadline - time.monotonic()) > 0:
            if not poll.poll(min(left, _LOOK_SECONDS) * 1000 + 1):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    continue
                return told, "", deadline  # it ended, and something that it started has not
            data = os.read(reading, 1 << 16)
            told.printed += len(data)
            if not data:
                # Before it began anything, the child has met a fault of ours.
                return told, "" if begun else "lost", deadline
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                following = told.number + begun
                if following < len(self._markers) and line == self._markers[following] + b'"begun"':
                    if begun:
                        self._write(told)
                        told = _Program(following)
                    begun = True
                    deadline = time.monotonic() + self._asked["wait_seconds"]
                elif begun:
                    self._note(told, line)
            if told.printed > _MOST_TOLD or len(rest) > _MOST_TOLD:
                return told, "printed", deadline
        return told, "waited", deadline

    def _note(self, told: _Program, line: bytes) -> None:
        """Note a line of a program's own marker; others are what it printed."""
        marker = self._markers[told.number]
        if not line.startswith(marker):
            return
        said = line[len(marker) :]
        if said.startswith(b"["):
            told.lines.append(line)
        elif said == b'"observed"':
            told.is_observed = True
        elif not told.fate:
            told.fate = json.loads(said) if said in (b'"passed"', b'"failed"', b'"memory"') else ""

    def _reap(self, pid: int, cause: str, deadline: float) -> tuple[str, str, float]:
        """Wait for the end of a child, and end what it started; return also how it ended, and its CPU seconds."""
        ended, status, usage = (0, 0, None) if cause else os.wait4(pid, os.WNOHANG)
        while not ended and not cause:
            time.sleep(_REAP_SECONDS)
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            cause = "waited" if not ended and time.monotonic() > deadline else ""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if not ended:
            os.kill(pid, signal.SIGKILL)  # it may have left its group
            _, status, usage = os.wait4(pid, 0)
        seconds = usage.ru_utime + usage.ru_stime if usage is not None else 0.0
        if cause:
            return cause, "", seconds
        if os.WTERMSIG(status) == signal.SIGKILL or os.WEXITSTATUS(status) == _LOST_STATUS:
            return "lost", "", seconds
        return "", "timed out" if os.WTERMSIG(status) == signal.SIGPROF else "ended", seconds

    def _end_if_not_alone(self) -> None:
        """End the program if a process is left: as the first of its namespace, this one is the parent of all."""
        if os.getpid() != 1:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            os._exit(0)

    def _write(self, told: _Program) -> None:
        """Write what became of a program, with its observations if there is room for them."""
        marker = self._markers[told.number]
        size = sum(len(line) + 1 for line in told.lines)
        if told.fate == _PASSED and told.is_observed and size <= self._room:
            self._room -= size
            self._put(b"".join(b"\n" + line for line in [*told.lines, marker + b'["observed"]']) + b"\n")
        self._put(b"\n" + marker + json.dumps(["program", told.fate]).encode() + b"\n")

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]


def run_batch(names: dict[str, Any], asked: str) -> Iterator[bool]:
    """Execute what is asked, as JSON in hexadecimal, in a module with these globals."""
    return _Batch(names, json.loads(bytes.fromhex(asked))).lines()
