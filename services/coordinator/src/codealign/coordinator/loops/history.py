"""What the store says of a loop: its training, and the model that came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Dataset


async def submitted(dataset: Dataset, loop_id: str, request: int | None = None) -> str:
    """The training that a loop has submitted last.

    Args:
        dataset: The store.
        loop_id: The Loop record's.
        request: Submitted for this request of the loop. None: for any.

    Returns:
        The training's id; empty: none.
    """
    events = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_RUN_EVENT, parent_id=loop_id))
    named = [each for each in events if each.run_event.training and request in (None, each.run_event.request)]
    last = max(named, key=lambda record: record.attempt, default=None)
    return last.run_event.training if last else ""


async def checkpoint(dataset: Dataset, training: tr.Training) -> pb.Checkpoint | None:
    """What a training that has succeeded made; None: the store does not have it."""
    if not training.checkpoint_id:
        return None
    found = (await dataset.get(ds.GetRequest(ids=[training.checkpoint_id]))).records
    return found[0].checkpoint if found else None


Stood = tuple[pb.Record, requests.Standing]
"""A loop, with what is wanted of it and what is the case."""


async def loops_of(dataset: Dataset, run_id: str) -> list[Stood]:
    """A run's loops, the one that was asked for last at the end."""
    found = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_LOOP, parent_id=run_id))
    return _in_order([(loop, await requests.standing(dataset, loop.id)) for loop in found])


async def last_loops(dataset: Dataset, standings: Mapping[str, requests.Standing]) -> dict[str, Stood]:
    """Every run's loop that was asked for last, by the run's id.

    Args:
        dataset: The store.
        standings: Of all subjects.
    """
    found = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_LOOP))
    stood = _in_order([(loop, standings.get(loop.id, requests.Standing())) for loop in found])
    return {each[0].parents[0]: each for each in stood}


def _in_order(loops: Iterable[Stood]) -> list[Stood]:
    """As they were asked for."""

    def asked_at(each: Stood) -> tuple[int, str]:
        loop, standing = each
        asked = standing.request or loop
        return asked.provenance.created_at.ToNanoseconds(), loop.id

    return sorted(loops, key=asked_at)
