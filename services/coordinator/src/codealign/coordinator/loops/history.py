"""Stored state of loops: their trainings and the resulting models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Dataset


async def submitted(dataset: Dataset, loop_id: str, request: int | None = None) -> str:
    """Return the id of the training that a loop submitted last.

    Args:
        dataset: Store to read.
        loop_id: Id of the Loop record.
        request: Number of the loop's request that the training was submitted for, or None for any.

    Returns:
        The training's id, or an empty string if there is none.
    """
    events = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_RUN_EVENT, parent_id=loop_id))
    named = [each for each in events if each.run_event.training and request in (None, each.run_event.request)]
    last = max(named, key=lambda record: record.attempt, default=None)
    return last.run_event.training if last else ""


async def checkpoint(dataset: Dataset, training: tr.Training) -> pb.Checkpoint | None:
    """Return the checkpoint of a successful training, or None if the store does not have it."""
    if not training.checkpoint_id:
        return None
    found = (await dataset.get(ds.GetRequest(ids=[training.checkpoint_id]))).records
    return found[0].checkpoint if found else None


Stood = tuple[pb.Record, requests.Standing]
"""A loop with its wanted and actual state."""


async def loops_of(dataset: Dataset, run_id: str) -> list[Stood]:
    """Return a run's loops, in the order of their latest requests."""
    found = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_LOOP, parent_id=run_id))
    return _in_order([(loop, await requests.standing(dataset, loop.id)) for loop in found])


async def last_loops(dataset: Dataset, standings: Mapping[str, requests.Standing]) -> dict[str, Stood]:
    """Return the most recently requested loop of every run, by run id.

    Args:
        dataset: Store to read.
        standings: Wanted and actual states of all subjects, by id.
    """
    found = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_LOOP))
    stood = _in_order([(loop, standings.get(loop.id, requests.Standing())) for loop in found])
    return {each[0].parents[0]: each for each in stood}


def _in_order(loops: Iterable[Stood]) -> list[Stood]:
    """Sort loops by the time of their latest request."""

    def asked_at(each: Stood) -> tuple[int, str]:
        loop, standing = each
        asked = standing.request or loop
        return asked.provenance.created_at.ToNanoseconds(), loop.id

    return sorted(loops, key=asked_at)
