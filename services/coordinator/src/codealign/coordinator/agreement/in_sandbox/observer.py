"""Calls a function of an answer with inputs, and writes what happened. Runs in the sandbox, beside the answer.

Standard library only, and of it only what every execution needs. See `agreement/observing.py` for the rules.
"""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from codealign.coordinator.agreement.in_sandbox.forms import Incomparable, Writer, cut, digest, type_name

_MOST_PRINTED = 1 << 20
"""Bytes printed by one call that count."""
_WAITING_SECONDS = 10.0
"""A call may take so much more wall-clock time than four times its CPU time."""
_AGAIN_SECONDS = 0.0002
"""Until the next interruption. The handler sets the timer each time: a periodic one that fires faster than the machine
delivers signals would let no handler run."""
_MOST_RINGS = 1_000


class _TooLong(BaseException):
    """A call used up its time."""


class _Printed(io.RawIOBase):
    """Takes what a call prints."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.kept += bytes(data)[: max(0, _MOST_PRINTED - len(self.kept))]
        return len(data)


def _stream(raw: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)


class _Clock:
    """Interrupts calls that take too long.

    CPU time counts, so that a busy machine interrupts nobody; wall-clock time ends a call that waits. A program may
    catch the interruption and go on (`while True: try: ... except: ...`), so it is repeated soon after until it
    comes outside of what is caught. If that does not help, the program is given up.
    """

    def __init__(self, seconds: float, give_up: Callable[[], None]) -> None:
        self._seconds, self._give_up = seconds, give_up
        self._running, self._rings = False, 0
        self.waited = False
        """Whether the last interrupted call had waited, rather than worked."""
        for ring in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(ring, self._ring)

    def _ring(self, number: int, _: object) -> None:
        if not self._running:
            return
        self._rings += 1
        if self._rings == 1:
            self.waited = number == signal.SIGALRM
        elif self._rings > _MOST_RINGS:
            self._running = False
            self._give_up()
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        raise _TooLong

    def run(self, work: Callable[[], Any]) -> Any:
        """Return what the work returns.

        Raises:
            _TooLong: It was interrupted, even if it caught that and returned something.
        """
        self._rings = 0
        self._running = True
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        signal.setitimer(signal.ITIMER_REAL, 4 * self._seconds + _WAITING_SECONDS)
        try:
            made = work()
            if self._rings:
                raise _TooLong
            return made
        except BaseException:
            if self._rings:  # rings in quick succession may make another exception of it
                raise _TooLong from None
            raise
        finally:
            # First, and without a call: a ring could interrupt it.
            self._running = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)


class _Observer:
    def __init__(self, names: dict[str, Any], asked: dict[str, Any]) -> None:
        self._asked, self._marker = asked, asked["marker"]
        self._clock = _Clock(asked["seconds"], self._end)
        self._place: list[Any] = []
        """Of the current call, as it begins a line."""
        self._ends = time.process_time() + asked["total_seconds"]
        self._space = {**names, **{module: __import__(module) for module in asked["modules"]}}

    def lines(self) -> Iterator[bool]:
        """Observe each input, then each oracle at each input; True for each line that is written."""
        inputs = list(enumerate(self._asked["inputs"]))
        for number, (positional, keywords) in inputs:
            if time.process_time() > self._ends:
                return
            arguments = ", ".join([*positional, *(f"{name}={text}" for name, text in keywords)])
            self._place = ["input", number]
            self._write(self._stable(self._asked["call"], arguments))
            yield True
        self._prepare()
        for oracle, (parameters, expression) in enumerate(self._asked["oracles"]):
            call = f"(lambda {', '.join(parameters)}: {expression})(*_)"
            for number, (positional, keywords) in inputs:
                if time.process_time() > self._ends:
                    return
                if not keywords and len(positional) == len(parameters):
                    self._place = ["oracle", oracle, number]
                    self._write(self._stable(call, ", ".join(positional)))
                    yield True

    def _prepare(self) -> None:
        """Execute what the oracles may need of the tests. What fails will be missed, or not."""
        self._place = ["preamble"]  # not that of the last input, which has its outcome
        for statement in self._asked["preamble"] if self._asked["oracles"] else ():
            try:
                self._clock.run(functools.partial(exec, statement, self._space))
            except BaseException:  # noqa: S112
                continue

    def _stable(self, call: str, arguments: str) -> dict[str, Any]:
        """Observe a call twice, with other states of the random generators."""
        first = self._outcome(call, arguments, 1)
        if first["kind"] not in ("returned", "raised"):
            return first
        again = self._outcome(call, arguments, 2)
        return first if again == first else {"kind": "unstable", "text": "another outcome when called again"}

    def _outcome(self, call: str, arguments: str, seed: int) -> dict[str, Any]:
        """Observe a call with arguments that are made for it."""
        before_streams = sys.stdin, sys.stdout, sys.stderr
        printed = _Printed()
        sys.stdin, sys.stdout, sys.stderr = io.StringIO(), _stream(printed), _stream(_Printed())
        try:
            return self._called(call, arguments, seed, printed)
        except _TooLong:
            return self._interrupted()
        except MemoryError:
            return {"kind": "unobserved", "text": "out of memory"}
        finally:
            sys.stdin, sys.stdout, sys.stderr = before_streams

    def _called(self, call: str, arguments: str, seed: int, printed: _Printed) -> dict[str, Any]:
        try:
            make = compile(f"(lambda *_, **__: (_, __))({arguments})", "<arguments>", "eval")
            made = self._clock.run(lambda: eval(make, self._space))  # noqa: S307
        except Exception as error:
            return {"kind": "unobserved", "text": f"arguments cannot be made: {cut(type_name(type(error)))}"}
        before = self._clock.run(lambda: _form_of(made))
        space = {**self._space, "_": made[0], "__": made[1]}
        writer = Writer()
        _seed(seed)
        try:
            text = self._clock.run(lambda: writer.written(_awaited(eval(call, space))))  # noqa: S307
            outcome: dict[str, Any] = {"kind": "returned", "text": cut(text)}
        except Incomparable as error:
            return {"kind": "unobserved", "text": cut(f"cannot be compared: {error}")}
        except (_TooLong, MemoryError):
            raise
        except BaseException as error:
            outcome = {"kind": "raised", "text": cut(type_name(type(error)))}
        after = self._clock.run(lambda: _form_of(made))
        if before and not after:
            return {"kind": "unobserved", "text": "the arguments cannot be compared after the call"}
        if writer.floats:
            outcome["floats"] = True
        if printed.kept:
            outcome["printed"] = digest(bytes(printed.kept))
        if after != before:
            outcome["changed"] = cut(after)
        return outcome

    def _interrupted(self) -> dict[str, Any]:
        if self._clock.waited:
            return {"kind": "unobserved", "text": "waited for too long"}
        return {"kind": "timed out", "text": ""}

    def _end(self) -> None:
        """End the program, since a call cannot be ended."""
        self._write(self._interrupted())
        os._exit(0)

    def _write(self, outcome: dict[str, Any]) -> None:
        data = f"\n{self._marker} {json.dumps([*self._place, outcome])}\n".encode()
        while data:
            data = data[os.write(1, data) :]


def _form_of(made: Any) -> str:
    """Return the form of arguments, to see whether a call changes them. Empty: they cannot be compared."""
    try:
        return Writer().written(list(made[0]) if not made[1] else made)
    except Incomparable:
        return ""


def _awaited(value: Any) -> Any:
    """Run a coroutine to its end."""
    if type_name(type(value)) != "coroutine":
        return value
    import asyncio

    return asyncio.run(value)


def _seed(number: int) -> None:
    for name in ("random", "numpy.random"):
        seed = getattr(sys.modules.get(name), "seed", None)
        if seed is not None:
            seed(number)


def observe(names: dict[str, Any], asked: str) -> Iterator[bool]:
    """Observe what is asked, as JSON in hexadecimal, of a program with these globals."""
    return _Observer(names, json.loads(bytes.fromhex(asked))).lines()
