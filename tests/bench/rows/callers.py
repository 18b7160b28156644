"""Callers of a real gateway, each with its own connection."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from services.sandbox.tests.conftest import Gateway, name_of
from tests.bench.rows.programs import Program
from tests.bench.rows.workers import Sample
from tests.hostile.host import descendants, resident_bytes

_CALL_SECONDS = 120.0
_FAULTS = 3


class Caller:
    """Requests one execution after the other."""

    def __init__(self, gateway: Gateway) -> None:
        """Connects."""
        self._channel = gateway.open_channel()
        self._stub = SandboxServiceStub(self._channel)

    def run(self, seconds: float, programs: Sequence[Program]) -> Sample:
        """See `Worker`."""
        requests = [
            pb.ExecuteRequest(program=pb.Program(code=program.code, tests=program.tests)) for program in programs
        ]
        sample = Sample([])
        end = time.perf_counter() + seconds
        number = 0
        while not sample.latencies or time.perf_counter() < end:
            begun = time.perf_counter()
            result = self._stub.Execute(requests[number % len(requests)], timeout=_CALL_SECONDS).result
            sample.latencies.append(time.perf_counter() - begun)
            number += 1
            if result.verdict != pb.VERDICT_PASSED and len(sample.faults) < _FAULTS:
                sample.faults.append(f"{name_of(result)}: {result.detail}")
        return sample

    def close(self) -> None:
        """Disconnect."""
        self._channel.close()


def memory_bytes(gateway: Gateway) -> dict[str, float]:
    """Return the memory of "gateway", "runners" (each page counted once) and "runners_rss"."""
    trees = gateway.children()
    own = [pid for tree in trees for pid in (tree, *descendants(tree))]
    runners = sum(resident_bytes(tree) for tree in trees)
    return {
        "gateway": resident_bytes(gateway.process.pid) - runners,
        "runners": runners,
        "runners_rss": sum(map(_rss, own)),
    }


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    return 0
