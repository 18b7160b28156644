"""A lease that is renewed, and reacquired if it expired, for as long as possible."""

from __future__ import annotations

import asyncio
import contextlib

from codealign.api.dataset.v1 import dataset_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError, FailedPrecondition, NotFound, Unavailable
from codealign.common.logs import get_logger
from codealign.coordinator import metrics
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.store import STORE, LeaseLost
from codealign.coordinator.ground.waiting import Waiting

log = get_logger(__name__)
RETRY_SECONDS = 1.0
RELEASE_SECONDS = 5.0
"""Timeout for a release, in seconds; after that the lease expires by itself."""


class Lease:
    """One lease of the store; implements `store.Fence`.

    Args:
        dataset: The store.
        name: Name of the lease, such as "run/<id>".
        holder: Unique name of this process: the store grants a lease again to its holder.
        seconds: Time without renewal after which the lease expires.
        waiting: Records that the store is unavailable.
    """

    def __init__(self, dataset: Dataset, name: str, holder: str, seconds: float, waiting: Waiting) -> None:
        self._dataset, self._name, self._holder, self._seconds = dataset, name, holder, seconds
        self._waiting = waiting
        self._token: api.LeaseToken | None = None
        self._lost = ""
        self._regaining = asyncio.Lock()

    @property
    def token(self) -> api.LeaseToken:
        """The token for appends. Valid only after the lease was acquired.

        Raises:
            LeaseLost: Another holder has the lease or had it in the meantime.
        """
        if self._lost:
            raise LeaseLost(self._lost)
        assert self._token is not None, "the lease was never acquired"
        return self._token

    async def acquire(self) -> bool:
        """Try once to acquire the lease and return whether it succeeded; False if another holder has it.

        Raises:
            CodeAlignError: The store is unavailable (also for `Unavailable`, if a second call fails too).
        """
        try:
            await self._acquire()
        except Unavailable:
            await self._look()
            return False
        _count("acquired")
        return True

    async def _acquire(self) -> None:
        request = api.AcquireLeaseRequest(name=self._name, holder=self._holder, ttl_seconds=self._seconds)
        lease = (await self._dataset.acquire_lease(request)).lease
        self._token = api.LeaseToken(name=lease.name, token=lease.token)

    async def _look(self) -> None:
        """Raise if the store is unavailable: AcquireLease returns UNAVAILABLE for an outage and a held lease alike."""
        await self._dataset.scan(api.ScanRequest(kind=pb.KIND_RUN_REQUEST, page_size=1))

    async def keep(self) -> None:
        """Renew the lease until cancelled.

        Raises:
            LeaseLost: Another holder has the lease or had it in the meantime.
        """
        pause = self._seconds / 3
        while True:
            await asyncio.sleep(pause)
            token = self.token
            try:
                await self._dataset.renew_lease(api.RenewLeaseRequest(lease=token, ttl_seconds=self._seconds))
            except (FailedPrecondition, NotFound):
                await self.regain(token)
            except CodeAlignError as error:
                _count("failed")
                self._waiting.begin(STORE, error.message)
                pause = min(RETRY_SECONDS, self._seconds / 6)
                continue
            else:
                _count("renewed")
            self._waiting.end(STORE)
            pause = self._seconds / 3

    async def regain(self, refused: api.LeaseToken) -> None:
        """Acquire the lease again after the store refused its token, waiting while the store is unavailable.

        Raises:
            LeaseLost: Another holder has the lease or had it in the meantime.
        """
        async with self._regaining:
            if self.token.token != refused.token:
                return
            await self._acquire_again()
            if self.token.token != refused.token + 1:
                self._lose(f"another coordinator held lease {self._name} in the meantime")
            _count("regained")
            log.info("lease_regained", lease=self._name, token=self.token.token)

    async def _acquire_again(self) -> None:
        seen = False
        while True:
            try:
                await self._acquire()
                break
            except Unavailable as error:
                if seen:  # the store answers and refuses again: the lease is taken
                    self._lose(error.message)
            except CodeAlignError as error:
                log.info("lease_not_regained", lease=self._name, message=error.message)
            try:
                await self._look()
                seen = True
            except CodeAlignError as error:
                seen = False
                self._waiting.begin(STORE, error.message)
                await asyncio.sleep(RETRY_SECONDS)
        self._waiting.end(STORE)

    def _lose(self, message: str) -> None:
        self._lost = message
        _count("lost")
        log.warning("lease_lost", lease=self._name, message=message)
        raise LeaseLost(message)

    async def release(self) -> None:
        """Release the lease if it is held. If the store is unavailable, the lease expires by itself."""
        if self._token is None:
            return
        with contextlib.suppress(CodeAlignError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._dataset.release_lease(api.ReleaseLeaseRequest(lease=self._token))


def _count(event: str) -> None:
    metrics.LEASE_EVENTS.labels(event).inc()
