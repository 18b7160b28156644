"""Turns of experiments: on a machine that holds one model, one experiment at a time loads models.

An experiment has its turn from the RunEvent that says so until it ends or pauses, whichever coordinator works on it and
however often that is killed. The event is written under a lease, after a look at the other experiments, so that no two
begin at once. Experiments wait for each other only if one of the two has `one_model`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.lease import Lease
from codealign.coordinator.ground.ports import Dataset
from codealign.coordinator.ground.store import RunStore

LEASE = "experiments/turn"
LEASE_SECONDS = 15.0
"""Time in seconds to look at the other experiments. A coordinator that is killed meanwhile delays them by as much."""


async def take(dataset: Dataset, assignment: Assignment, pause: Callable[[], Awaitable[None]]) -> None:
    """Wait until it is an experiment's turn, and record that. Return at once if it has its turn already.

    Args:
        dataset: The store.
        assignment: The experiment. Its message says for which one it waits.
        pause: Waits until the next look.

    Raises:
        LeaseLost: The store was away for so long that another experiment may have taken its turn: try again.
    """
    subject = assignment.subject
    if await _has(dataset, subject.id):
        return
    lease = Lease(dataset, LEASE, subject.id, LEASE_SECONDS, assignment.waiting)
    while True:
        if await lease.acquire():
            try:
                first = await _in_the_way(dataset, subject)
                if first is None:
                    event = pb.RunEvent(state=pb.RUN_STATE_RUNNING, message="it is its turn", has_turn=True)
                    async with RunStore(dataset, subject.id, lease, assignment.waiting) as store:
                        await assignment.record(event, store)
                    return
            finally:
                await lease.release()
            assignment.say(f"waits for experiment {first.experiment.name} ({first.id[:12]})")
            while await _has(dataset, first.id):
                await pause()
        await pause()


async def _in_the_way(dataset: Dataset, subject: pb.Record) -> pb.Record | None:
    """Return an experiment that has its turn and cannot be carried out beside this one, or None."""
    for other in await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_EXPERIMENT)):
        alone = other.experiment.one_model or subject.experiment.one_model
        if other.id != subject.id and alone and await _has(dataset, other.id):
            return other
    return None


async def _has(dataset: Dataset, experiment_id: str) -> bool:
    """Return whether an experiment has its turn: an event says so, and none since that it ended or paused."""
    events = await requests.scan(dataset, ds.ScanRequest(kind=pb.KIND_RUN_EVENT, parent_id=experiment_id))
    has_turn = False
    for event in sorted(events, key=lambda record: record.attempt):
        running = event.run_event.state == pb.RUN_STATE_RUNNING
        has_turn = running and (has_turn or event.run_event.has_turn)
    return has_turn
