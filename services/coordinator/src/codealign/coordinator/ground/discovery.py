"""Discovery of subjects whose requested state differs from their actual state.

Every request is a member of its day's collection, and the store keeps counts of collections. One cheap count therefore
tells whether there are new requests; only then are the day's requests read. Subjects that are not settled are
remembered until they are. All requests and events are read at startup and then every hour, in case a clock was wrong.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from codealign.api.dataset.v1 import dataset_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.records import requests_collection
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.requests import scan, standings

FULL_SECONDS = 3600.0


class Discovery:
    """The open subjects known to this coordinator.

    Attributes:
        open: Open subjects, each with the number of its last request.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.open: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._full_at: float | None = None

    def add(self, subject: str, number: int) -> None:
        """Add a request that was made for a subject."""
        if number > self._settled.get(subject, -1):
            self.open[subject] = max(number, self.open.get(subject, -1))

    def settle(self, subject: str, number: int) -> None:
        """Mark a subject's requests up to this number as done."""
        self._settled[subject] = max(number, self._settled.get(subject, -1))
        if self.open.get(subject, number) <= number:
            self.open.pop(subject, None)

    async def look(self) -> set[str]:
        """Look for new requests. Makes one try.

        Returns:
            The subjects with new requests since the last look.

        Raises:
            CodeAlignError: The store is unavailable; the next look finds what this one missed.
        """
        now, time = datetime.now(UTC), asyncio.get_running_loop().time()
        days = (requests_collection(now), requests_collection(now - timedelta(days=1)))
        counts = {name: await self._count(name) for name in days}
        if self._full_at is None or time - self._full_at >= FULL_SECONDS:
            found = await self._everything()
            self._full_at = time
        else:
            changed = [name for name, count in counts.items() if count != self._counts.get(name, 0)]
            found = [record for name in changed for record in await self._requests(name)]
        before = dict(self.open)
        for record in found:
            self.add(record.parents[0], record.attempt)
        # Set last, so that a failed look is repeated. Counted first, so that a request made meanwhile changes the next
        # count.
        self._counts = counts
        return {subject for subject, number in self.open.items() if before.get(subject, -1) < number}

    async def _count(self, collection: str) -> int:
        response = await self._dataset.count(api.CountRequest(collection=collection))
        return sum(count.count for count in response.counts if count.kind == pb.KIND_RUN_REQUEST)

    async def _requests(self, collection: str) -> list[pb.Record]:
        return await scan(self._dataset, api.ScanRequest(kind=pb.KIND_RUN_REQUEST, collection=collection))

    async def _everything(self) -> list[pb.Record]:
        """Return the last request of each subject that is not settled."""
        left = []
        for subject, standing in (await standings(self._dataset)).items():
            if standing.settled(repeatable=True):
                self.settle(subject, standing.number)
            elif standing.request is not None:
                left.append(standing.request)
        return left
