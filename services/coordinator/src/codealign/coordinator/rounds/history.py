"""Stored state of series: their rounds, and the series that a run belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Dataset

Stood = tuple[pb.Record, requests.Standing]
"""A series with its wanted and actual state."""


async def rounds_of(dataset: Dataset, series_id: str) -> list[pb.Round]:
    """Return the rounds of a series that have begun, in order, as its last events know them."""
    events = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_RUN_EVENT, parent_id=series_id))
    ordered = sorted((event for event in events if event.run_event.HasField("round")), key=lambda event: event.attempt)
    found = {event.run_event.round.number: event.run_event.round for event in ordered}
    return [found[number] for number in sorted(found)]


async def begun_by(dataset: Dataset, run_id: str) -> list[Stood]:
    """Return the series whose first round is this run."""
    found = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_SERIES, parent_id=run_id))
    return [(series, await requests.standing(dataset, series.id)) for series in found]


async def series_of(dataset: Dataset, run_id: str, loops: Sequence[pb.Record] | None = None) -> Stood | None:
    """Return the series that a run belongs to, the last requested one if there are several, or None.

    A later round's run is found through its loop, whose second parent is the series.

    Args:
        dataset: The store.
        run_id: Id of the Run record.
        loops: The run's loops, if already read.
    """
    found = {series.id: (series, standing) for series, standing in await begun_by(dataset, run_id)}
    if loops is None:
        loops = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_LOOP, parent_id=run_id))
    others = sorted({parent for loop in loops for parent in loop.parents[1:]} - found.keys())
    if others:
        for series in (await dataset.get(ds.GetRequest(ids=others))).records:
            found[series.id] = series, await requests.standing(dataset, series.id)

    def asked_at(each: Stood) -> tuple[int, str]:
        series, standing = each
        return (standing.request or series).provenance.created_at.ToNanoseconds(), series.id

    return max(found.values(), key=asked_at, default=None)
