"""The requested and actual state of a run, loop or evaluation: its RunRequest and RunEvent records.

Both are children of the subject, numbered from 0 by their attempt; the last of each is in force. A request is also a
member of its day's collection, so that one count tells a coordinator whether there are new ones (`discovery`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from codealign.api.dataset.v1 import dataset_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import FailedPrecondition
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.store import PRODUCER

PAGE = 1000
RUNNING, PAUSED, CANCELLED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_PAUSED, pb.RUN_STATE_CANCELLED
SUCCEEDED = pb.RUN_STATE_SUCCEEDED
Poke = Callable[[str, int], None]
"""Callback for a recorded request: the subject's id and the request's number; see `Controllers.poke`."""


@dataclass(frozen=True)
class Standing:
    """The state of a subject: its last request (a RunRequest) and its last event (a RunEvent)."""

    request: pb.Record | None = None
    event: pb.Record | None = None

    @property
    def wanted(self) -> pb.RunState.ValueType:
        """The requested state: RUNNING, PAUSED or CANCELLED, or UNSPECIFIED if there is no request."""
        return self.request.run_request.wanted if self.request else pb.RUN_STATE_UNSPECIFIED

    @property
    def number(self) -> int:
        """Number of the last request, or -1 if there is none."""
        return self.request.attempt if self.request else -1

    @property
    def state(self) -> pb.RunState.ValueType:
        """State of the last event, or UNSPECIFIED if the work was never started."""
        return self.event.run_event.state if self.event else pb.RUN_STATE_UNSPECIFIED

    @property
    def known(self) -> int:
        """Number of the last request known to the last event, or -1 if there is no event."""
        return self.event.run_event.request if self.event else -1

    @property
    def message(self) -> str:
        """Message of the last event."""
        return self.event.run_event.message if self.event else ""

    def settled(self, *, repeatable: bool) -> bool:
        """Return whether nothing is left to do: the requested and actual state agree, or the work failed since.

        Args:
            repeatable: Whether a request after a success starts the work again.
        """
        if self.request is None or (self.state == pb.RUN_STATE_SUCCEEDED and not repeatable):
            return True
        return self.state not in (pb.RUN_STATE_UNSPECIFIED, pb.RUN_STATE_RUNNING) and self.known >= self.number


async def count(dataset: Dataset, collection: str, kind: pb.Kind.ValueType) -> int:
    """Return the number of records of a kind in a collection, with one try."""
    counts = (await dataset.count(api.CountRequest(collection=collection))).counts
    return sum(each.count for each in counts if each.kind == kind)


async def scan(dataset: Dataset, request: api.ScanRequest) -> list[pb.Record]:
    """Return all records of a scan, with one try per page."""
    page, found = api.ScanRequest(), list[pb.Record]()
    page.CopyFrom(request)
    page.page_size = PAGE
    while True:
        response = await dataset.scan(page)
        found += response.records
        if not response.next_page_token:
            return found
        page.page_token = response.next_page_token


async def standing(dataset: Dataset, subject: str) -> Standing:
    """Return the state of a subject by its id, with one try per call."""
    latest: list[pb.Record | None] = []
    for kind in (pb.KIND_RUN_REQUEST, pb.KIND_RUN_EVENT):
        found = await scan(dataset, api.ScanRequest(kind=kind, parent_id=subject))
        latest.append(max(found, key=lambda record: record.attempt, default=None))
    return Standing(*latest)


async def standings(dataset: Dataset) -> dict[str, Standing]:
    """Return the state of every subject with a request or an event, by the subject's id, with one try per page."""
    asked = last(await scan(dataset, api.ScanRequest(kind=pb.KIND_RUN_REQUEST)))
    events = last(await scan(dataset, api.ScanRequest(kind=pb.KIND_RUN_EVENT)))
    return {subject: Standing(asked.get(subject), events.get(subject)) for subject in asked.keys() | events.keys()}


def last(found: Iterable[pb.Record]) -> dict[str, pb.Record]:
    """Return the last request or event of each subject, by the subject's id."""
    return {record.parents[0]: record for record in sorted(found, key=lambda record: record.attempt)}


async def append(
    dataset: Dataset, subject: str, request: pb.RunRequest, number: int, *, first: Sequence[pb.Record] = ()
) -> pb.Record:
    """Record a request under this number. If the number is taken, the existing request is kept.

    Args:
        dataset: The store.
        subject: The subject's id.
        request: The request.
        number: The request's number.
        first: Records to append before it, all or none: the subject itself when it is created.

    Returns:
        The request that the store keeps.
    """
    record = pb.Record(kind=pb.KIND_RUN_REQUEST, parents=[subject], attempt=number, run_request=request)
    now = datetime.now(UTC)
    for each in (*first, record):
        each.provenance.producer = each.provenance.producer or PRODUCER
        if not each.provenance.HasField("created_at"):
            each.provenance.created_at.FromDatetime(now)
        records.complete(each)
    response = await dataset.append(
        api.AppendRequest(records=[*first, record], collection=records.requests_collection(now))
    )
    result = response.results[-1]
    return result.kept if result.HasField("kept") else record


async def want(
    dataset: Dataset, subject: str, wanted: pb.RunState.ValueType, reason: str, *, repeatable: bool = False
) -> pb.Record | None:
    """Record the requested state of a subject. Concurrent identical requests become one.

    Args:
        dataset: The store.
        subject: The subject's id.
        wanted: RUNNING, PAUSED or CANCELLED.
        reason: Reason, shown to users.
        repeatable: Whether RUNNING starts the work again after a success.

    Returns:
        The last request, for the controller, or None if the subject is already settled in that state.

    Raises:
        FailedPrecondition: The subject has ended and can no longer be paused or cancelled.
    """
    while True:
        now = await standing(dataset, subject)
        settled = now.settled(repeatable=repeatable)
        if (settled and now.state == wanted) or (wanted == RUNNING and now.state == SUCCEEDED and not repeatable):
            return None
        if now.wanted == wanted and not settled:
            return now.request
        if (settled and wanted == PAUSED) or (wanted == CANCELLED and now.state == SUCCEEDED):
            raise FailedPrecondition(
                f"{subject[:12]} has ended ({_name(now.state)}): it cannot be {_name(wanted)}; see its message"
            )
        kept = await append(dataset, subject, pb.RunRequest(wanted=wanted, reason=reason), now.number + 1)
        if kept.run_request.wanted == wanted:
            return kept


async def obeyed(
    dataset: Dataset, subject: str, wanted: pb.RunState.ValueType, seconds: float, *, repeatable: bool = False
) -> None:
    """Wait until a subject is settled in a state that was requested for it, or another state is requested.

    Args:
        dataset: The store.
        subject: The subject's id.
        wanted: The requested state.
        seconds: Seconds between two looks.
        repeatable: Whether a request after a success starts the work again.
    """
    while True:
        now = await standing(dataset, subject)
        if now.wanted != wanted or now.settled(repeatable=repeatable):
            return
        await asyncio.sleep(seconds)


def _name(state: pb.RunState.ValueType) -> str:
    return pb.RunState.Name(state).removeprefix("RUN_STATE_").lower()
