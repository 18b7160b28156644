"""What a worker owes to its gateways: readiness when it has their models, and unfinished samples when it stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import Aborted
from codealign.common.health import Readiness
from codealign.common.logs import get_logger

_MARGIN_SECONDS = 2.0
"""Time before the end of the grace period for samples to be handed back."""

log = get_logger(__name__)


class Duty:
    """The duty of one worker.

    A worker is ready once it has loaded every model that gateways want. A model that it cannot have does not count,
    unless it has no other. Models that are wanted later do not change this: the worker serves what it has.

    Args:
        readiness: The server's readiness.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._refused: set[str] = set()
        self._is_fulfilled = False
        self._calls: set[asyncio.Timeout] = set()

    def refused(self, name: str) -> None:
        """Record that a model cannot be loaded here."""
        self._refused.add(name)

    async def told(self, wanted: Sequence[pb.WantedModel], loaded: Collection[str]) -> None:
        """Compare what gateways want with what is loaded."""
        if self._is_fulfilled:
            return
        missing = [entry.name for entry in wanted if entry.name not in loaded]
        self._is_fulfilled = self._refused.issuperset(missing) and bool(loaded or not missing)
        await self._readiness.set(self._is_fulfilled, "" if self._is_fulfilled else f"loading {', '.join(missing)}")

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Hold a call, which ends when samples are handed back.

        Raises:
            Aborted: The worker stops.
        """
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._calls.add(limit)
                try:
                    yield
                finally:
                    self._calls.discard(limit)
        except TimeoutError:
            if limit.expired():
                raise Aborted("this worker stops and hands the samples back: send them to another one") from None
            raise

    def hand_back(self) -> None:
        """End all calls with `Aborted`."""
        if self._calls:
            log.info("samples_handed_back", calls=len(self._calls))
        for limit in list(self._calls):
            limit.reschedule(asyncio.get_running_loop().time())


@contextlib.asynccontextmanager
async def duty_of(readiness: Readiness, drain_seconds: float) -> AsyncIterator[Duty]:
    """Hand samples back shortly before the grace period ends, which starts when the server drains.

    Args:
        readiness: The server's readiness. It stays off until a gateway has said what is wanted.
        drain_seconds: The grace period.
    """
    await readiness.set(False, "no gateway has said yet which models are wanted")
    duty = Duty(readiness)

    async def watch() -> None:
        await readiness.draining.wait()
        await asyncio.sleep(drain_seconds - min(_MARGIN_SECONDS, drain_seconds / 2))
        duty.hand_back()

    watcher = asyncio.create_task(watch())
    try:
        yield duty
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
