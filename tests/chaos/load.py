"""Callers that execute programs and check the results."""

from __future__ import annotations

import concurrent.futures
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import grpc

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from services.sandbox.tests.conftest import Gateway, name_of

CALL_SECONDS = 3600.0
_PAUSE_SECONDS = 0.2
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Status codes after which clients retry if the error has a retry delay; without one, the request is too large."""
_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True)
class Item:
    """One execution and its expected result."""

    request: pb.ExecuteRequest
    verdicts: tuple[str, ...]
    stdout: str | None = None
    """Expected output, or None for any."""
    name: str = ""

    def fault(self, result: pb.Result) -> str:
        """Return what is wrong with the result, or ""."""
        told = f"{self.name or self.request.request_id}: {name_of(result)} ({result.detail[:200]})"
        if name_of(result) not in self.verdicts:
            return f"{told}, must be {' or '.join(self.verdicts)}"
        if result.request_id != self.request.request_id:
            return f"{told}: the answer to another request, {result.request_id!r}"
        if result.isolation != pb.ISOLATION_GVISOR and name_of(result) != "REFUSED":
            return f"{told}: isolation is {pb.Isolation.Name(result.isolation)}"
        if self.stdout is not None and result.stdout.data.decode("utf-8", "replace") != self.stdout:
            return f"{told}: printed {result.stdout.data[:80]!r}, must be {self.stdout[:80]!r}"
        return ""


@dataclass
class Tally:
    """Results so far."""

    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    """End of each execution, in seconds of the monotonic clock."""
    runners: set[str] = field(default_factory=set)
    """Names of the runners that executed something."""
    asked_again: int = 0
    """Number of times that a caller was told to retry."""

    @property
    def done(self) -> int:
        """Number of finished executions."""
        return len(self.ends)

    def take(self, item: Item, result: pb.Result) -> None:
        """Count a result."""
        self.verdicts[name_of(result)] += 1
        self.ends.append(time.monotonic())
        if result.runner:
            self.runners.add(result.runner)
        fault = item.fault(result)
        if fault:
            self.wrong.append(fault)
            print(f"WRONG: {fault}", flush=True)

    def rate(self, first: int, last: int) -> float:
        """Return executions per second between two of them."""
        seconds = self.ends[last - 1] - self.ends[first]
        return (last - 1 - first) / seconds if seconds > 0 else 0.0


class Load:
    """Concurrent callers, each with its own connection and one request at a time."""

    def __init__(
        self, gateway: Gateway, items: Iterable[Item], callers: int, taken: Callable[[Item, pb.Result], None]
    ) -> None:
        """Starts them.

        Args:
            gateway: Is ready.
            items: What to execute; ends the load when it ends.
            callers: So many at once.
            taken: Called with each result, by one thread at a time.
        """
        self.asked_again = 0
        self._gateway, self._items, self._taken = gateway, iter(items), taken
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._calls: set[grpc.Future[pb.ExecuteResponse]] = set()
        self._pool = concurrent.futures.ThreadPoolExecutor(callers)
        self._futures = [self._pool.submit(self._call) for _ in range(callers)]

    @property
    def works(self) -> bool:
        """Return whether executions are outstanding.

        Raises:
            BaseException: The error that ended a caller.
        """
        for future in self._futures:
            if future.done():
                future.result()
        return not all(future.done() for future in self._futures)

    def wait(self, seconds: float) -> bool:
        """Wait until the end or the timeout, and return whether executions are outstanding."""
        concurrent.futures.wait(self._futures, seconds, concurrent.futures.FIRST_EXCEPTION)
        return self.works

    def stop(self) -> None:
        """Start no further executions and cancel the current ones, which may never be answered."""
        self._stop.set()
        for call in tuple(self._calls):
            call.cancel()
        self._pool.shutdown()

    def _call(self) -> None:
        with self._gateway.open_channel() as channel:
            stub = SandboxServiceStub(channel)
            while not self._stop.is_set():
                with self._lock:
                    item = next(self._items, None)
                if item is None:
                    return
                result = self._execute(stub, item)
                with self._lock:
                    self._taken(item, result)

    def _execute(self, stub: SandboxServiceStub, item: Item) -> pb.Result:
        while True:
            call = stub.Execute.future(item.request, timeout=CALL_SECONDS)
            self._calls.add(call)
            if self._stop.is_set():
                call.cancel()
            try:
                return call.result().result
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    # Errors that a stream reports in a result.
                    refused = pb.VERDICT_REFUSED
                    return pb.Result(request_id=item.request.request_id, verdict=refused, detail=error.details() or "")
                told = {pair.key for pair in error.trailing_metadata() or ()}
                if error.code() not in _AGAIN or _DETAILS not in told or self._stop.is_set():
                    raise
                with self._lock:
                    self.asked_again += 1
                time.sleep(_PAUSE_SECONDS)
            finally:
                self._calls.discard(call)


def ordinary(number: int) -> Item:
    """Return one of several programs with a unique number, so that no two have the same right answer."""
    code, tests, verdict = "def f(x):\n    return x * {n}\n", "assert f(3) == 3 * {n}\n", "PASSED"
    given = pb.Program()
    stdout = None
    match number % 10:
        case 0:
            tests, verdict = "assert f(3) == 3 * {n}\nassert f(2) == 2 * {n} + 1\n", "FAILED_ASSERTION"
        case 1:
            code, verdict = "def f(x):\n    return [{n}][x]\n", "RAISED"
        case 2:
            code, verdict = "import sys\nprint('{n}')\nsys.exit(0)\n", "EXITED_EARLY"
            stdout = f"{number}\n"
        case 3:
            code, tests, stdout = "print(int(input()) + {n})\n", "", f"{2 * number}\n"
            given.stdin, given.expected_output = f"{number}\n".encode(), stdout
        case 4:
            code = "def f(x):\n    return x * int(open('number').read())\n"
            given.files.add(path="number", content=str(number).encode())
        case 5:
            code = "import re\nfrom dataclasses import dataclass\n\n@dataclass\nclass Pair:\n    x: int\n\n" + code
            tests = "for x in range(20):\n    assert f(Pair(x).x) == x * {n}\n    assert re.match(r'\\d+', str(x))\n"
    given.code, given.tests = code.replace("{n}", str(number)), tests.replace("{n}", str(number))
    request = pb.ExecuteRequest(program=given, request_id=f"ordinary {number}")
    return Item(request, (verdict,), stdout)


def mixed(count: int, hostile: list[Item], share: float, seed: int) -> Iterator[Item]:
    """Yield ordinary programs mixed with hostile ones.

    Args:
        count: Of all.
        hostile: Those to draw from.
        share: Of hostile ones, 0 to 1.
        seed: Of the draw.
    """
    dice = random.Random(seed)
    for number in range(count):
        if hostile and dice.random() < share:
            item = dice.choice(hostile)
            request = pb.ExecuteRequest()
            request.CopyFrom(item.request)
            request.request_id = f"{item.name} {number}"
            yield Item(request, item.verdicts, name=item.name)
        else:
            yield ordinary(number)
