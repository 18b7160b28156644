"""Executes mutants of one answer with its tests, each in a process of its own. Runs in the sandbox.

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
from collections.abc import Callable, Iterator
from typing import Any

from codealign.coordinator.agreement.in_sandbox.observer import observe

_SPARE_BYTES = 64 << 20
"""Memory that a child may not have, since its parent's counts too."""
_MOST_TOLD = 1 << 20
"""Bytes that a child may print."""
_REAP_SECONDS = 0.0005
_BEGUN, _LOST_STATUS = "begun", 3
_TOLD = ("passed", "failed", "memory")

_Work = Callable[[int], None]
"""Gets the descriptor to tell what happened."""


class _Child:
    """What became of a child."""

    def __init__(self) -> None:
        self.printed = bytearray()
        self.cause = ""
        """Why it was killed. Empty: it ended by itself, or its timer ended it."""
        self.signal = 0
        self.status = 0
        """Its exit status, unless a signal ended it."""
        self.seconds = 0.0
        """CPU time."""

    def lines(self, marker: bytes) -> list[bytes]:
        """Return the complete lines that begin with its marker."""
        return [bytes(line) for line in self.printed.split(b"\n")[:-1] if line.startswith(marker)]


class _Batch:
    """Program 0 is the answer itself, the others are its mutants."""

    def __init__(self, names: dict[str, Any], asked: dict[str, Any]) -> None:
        self._names, self._asked = names, asked
        self._pristine = {name: value for name, value in names.items() if not name.startswith("_codealign")}
        self._path = str(names.get("__file__", "solution.py"))
        self._markers = [f"{each} ".encode() for each in asked["markers"]]
        self._room = asked["output_bytes"]
        self._memory = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        self._less_memory = soft if soft == resource.RLIM_INFINITY else max(soft - _SPARE_BYTES, 0), hard
        self._began = time.monotonic()
        self._spent = self._cpu_seconds()

    def lines(self) -> Iterator[bool]:
        """Execute all programs, as long as there is time; True for each that has a line."""
        # Otherwise the first collection in each child would copy the memory of all objects.
        gc.freeze()
        own = self._tested(0)[0]
        self._write(0, own)
        yield True
        if own != "passed":
            return
        for number in range(1, len(self._markers)):
            if self._is_late():
                break
            fate = self._tested(number)[0]
            if fate == "timed out" and not self._is_quick():
                fate = "slow"
            if fate == "passed" and self._asked["observed"]:
                self._observe(number)
            self._write(number, fate)
            yield True
        os.write(1, b"\n" + self._markers[0] + b'["end"]\n')

    def _is_quick(self) -> bool:
        """Execute the answer again and return whether it passes quickly. If not, the machine is slow, perhaps."""
        fate, seconds = self._tested(0)
        return bool(fate == "passed" and seconds <= self._asked["seconds"] / self._asked["factor"])

    def _is_late(self) -> bool:
        limit = self._asked["total_seconds"]
        return bool(self._cpu_seconds() - self._spent > limit or time.monotonic() - self._began > 2 * limit)

    def _cpu_seconds(self) -> float:
        return sum(os.times()[:4])

    def _code(self, number: int) -> str:
        code: str = self._asked["code"]
        if not number:
            return code
        start, end, text = self._asked["mutants"][number - 1]
        return f"{code[:start]}{text}{code[len(code) - end :]}"

    def _tested(self, number: int) -> tuple[str, float]:
        """Execute a program with the tests and return what became of it, with its CPU seconds."""

        def work(descriptor: int) -> None:
            signal.setitimer(signal.ITIMER_PROF, self._asked["seconds"])
            try:
                self._load(number)
                exec(compile(self._asked["tests"], "<tests>", "exec", dont_inherit=True), self._names)  # noqa: S102
                told = "passed"
            except BaseException as error:
                told = "memory" if issubclass(type(error), MemoryError) else "failed"
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._tell(number, descriptor, told)

        child = self._in_child(number, self._asked["wait_seconds"], work)
        told = [json.loads(line[len(self._markers[number]) :]) for line in child.lines(self._markers[number])]
        if child.cause:
            fate = child.cause
        elif told[1:] and told[1] in _TOLD:
            fate = told[1]
        elif not told or child.signal == signal.SIGKILL or child.status == _LOST_STATUS:
            fate = "lost"
        else:
            fate = "timed out" if child.signal == signal.SIGPROF else "ended"
        return fate, child.seconds

    def _observe(self, number: int) -> None:
        """Observe a program at the inputs and pass on its lines, if there is room for them."""
        marker = self._markers[number]

        def work(_: int) -> None:
            self._load(number)
            asked = {**self._asked["observed"], "marker": marker.decode().rstrip()}
            for _written in observe(self._names, json.dumps(asked).encode().hex()):
                pass

        child = self._in_child(number, self._asked["observing_seconds"], work)
        lines = child.lines(marker)[1:]  # the first says that the child began
        size = sum(len(line) + 1 for line in lines)
        if child.cause or child.signal == signal.SIGKILL or child.status == _LOST_STATUS or size > self._room:
            return
        self._room -= size
        self._put(b"".join(b"\n" + line for line in [*lines, marker + b'["observed"]']) + b"\n")

    def _load(self, number: int) -> None:
        """Execute a program's code as the sandbox does, in the module of this program."""
        self._names.clear()
        self._names.update(self._pristine, __name__="solution")
        exec(compile(self._code(number), self._path, "exec", dont_inherit=True), self._names)  # noqa: S102
        self._names["__name__"] = "__main__"

    def _in_child(self, number: int, seconds: float, work: _Work) -> _Child:
        """Do work in a child, and end it after this much wall-clock time."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.setpgid(0, 0)
                os.close(reading)
                self._confine(writing)
                self._tell(number, writing, _BEGUN)
                work(writing)
                os._exit(0)
            finally:
                os._exit(_LOST_STATUS)
        os.close(writing)
        child = _Child()
        deadline = time.monotonic() + seconds
        try:
            child.cause = self._drain(reading, child, deadline)
        finally:
            os.close(reading)
        self._reap(pid, child, deadline)
        self._end_if_not_alone()
        return child

    def _tell(self, number: int, descriptor: int, what: str) -> None:
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

    def _drain(self, reading: int, child: _Child, deadline: float) -> str:
        """Take what a child prints until it ends; return why it must be killed, or ""."""
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000 + 1):
                data = os.read(reading, 1 << 16)
                child.printed += data
                if not data:
                    return ""
                if len(child.printed) > _MOST_TOLD:
                    return "printed"
        return "waited"

    def _reap(self, pid: int, child: _Child, deadline: float) -> None:
        """Wait for the end of a child, and end what it started."""
        ended, status, usage = (0, 0, None) if child.cause else os.wait4(pid, os.WNOHANG)
        while not ended and not child.cause:
            time.sleep(_REAP_SECONDS)
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            child.cause = "waited" if not ended and time.monotonic() > deadline else ""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if not ended:
            os.kill(pid, signal.SIGKILL)  # it may have left its group
            _, status, usage = os.wait4(pid, 0)
        child.signal, child.status = os.WTERMSIG(status), os.WEXITSTATUS(status)
        child.seconds = usage.ru_utime + usage.ru_stime if usage is not None else 0.0

    def _end_if_not_alone(self) -> None:
        """End the program if a process is left: as the first of its namespace, this one is the parent of all."""
        if os.getpid() != 1:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            os._exit(0)

    def _write(self, number: int, fate: str) -> None:
        self._put(b"\n" + self._markers[number] + json.dumps(["program", fate]).encode() + b"\n")

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]


def run_batch(names: dict[str, Any], asked: str) -> Iterator[bool]:
    """Execute what is asked, as JSON in hexadecimal, in a module with these globals."""
    return _Batch(names, json.loads(bytes.fromhex(asked))).lines()
