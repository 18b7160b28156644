"""Cache of execution results by program content, shared by all evaluations of a coordinator."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from weakref import WeakValueDictionary

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.coordinator.evaluation.in_sandbox.calls import CallTimedOut

_UNSURE = (sb.VERDICT_TIMED_OUT, sb.VERDICT_OUT_OF_MEMORY)
"""Verdicts that may depend on the machine as well as the program."""


class KnownResults:
    """Least-recently-used cache of results.

    Args:
        limit_bytes: Maximum total size of the cached results.
    """

    def __init__(self, limit_bytes: int = 64 * 2**20) -> None:
        self._limit, self._size = limit_bytes, 0
        self._kept: OrderedDict[bytes, sb.Result] = OrderedDict()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def of(
        self, request: sb.ExecuteRequest, execute: Callable[[], Awaitable[sb.Result | None]], runners: str = ""
    ) -> sb.Result | None:
        """Return a copy of the result of a request.

        Args:
            request: Program and limits. Must not contain anything that differs between equivalent requests.
            execute: Called if the result is not cached; one caller at a time per request.
            runners: Identity of the runners; results are not shared between different runners.
        """
        key = sha256(runners.encode() + b"\0" + request.SerializeToString(deterministic=True)).digest()
        async with self._locks.setdefault(key, asyncio.Lock()):
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return _copy(kept)
            result = await execute()
            if result is not None and _is_sure(result):
                self._keep(key, _copy(result))
            return result

    def _keep(self, key: bytes, result: sb.Result) -> None:
        result.queue_seconds = 0.0
        self._kept[key] = result
        self._size += result.ByteSize()
        while self._size > self._limit:
            self._size -= self._kept.popitem(last=False)[1].ByteSize()


def _is_sure(result: sb.Result) -> bool:
    """Return whether another execution would give the same result."""
    timed_out = result.exception == CallTimedOut.__name__
    return result.isolation == sb.ISOLATION_GVISOR and result.verdict not in _UNSURE and not timed_out


def _copy(result: sb.Result) -> sb.Result:
    copy = sb.Result()
    copy.CopyFrom(result)
    return copy
