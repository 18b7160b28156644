"""Caller-facing operations on series, which are created, paused, resumed and cancelled through the runs of rounds."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.loops.operations import Assigned, Loops
from codealign.coordinator.loops.operations import has_settled as loop_has_settled
from codealign.coordinator.loops.request import checked as checked_loop
from codealign.coordinator.rounds import history
from codealign.coordinator.rounds.controller import REPLACED
from codealign.coordinator.rounds.request import checked, series_record


class Rounds:
    """All series in the store.

    Args:
        services: Clients of the other services; the store is used.
        loops: Operations on loops.
        poke: Called after every new request.
        assigned: Lookup of this coordinator's assignments.
    """

    def __init__(self, services: Services, loops: Loops, poke: requests.Poke, assigned: Assigned) -> None:
        self._services, self._loops, self._poke, self._assigned = services, loops, poke, assigned

    def check(self, request: api.CreateRunRequest | api.PlanRunRequest) -> pb.RoundSeries:
        """Return the request's series with its defaults, after checking that it is possible with the run and the loop.

        Raises:
            InvalidArgument: Names every invalid field.
        """
        return checked(request.series, request.loop if request.HasField("loop") else None, request.config)

    async def wanted(self, run: pb.Record, request: api.CreateRunRequest) -> None:
        """Request a series. An identical series of the same run is the same record and resumes where it stopped.

        Cancels any other unfinished series with the same first round, without stopping its run and loop, which this
        series may use.

        Args:
            run: The stored Run record of the first round.
            request: The checked request.

        Raises:
            NotFound: The run's model is not loaded.
        """
        dataset = self._services.dataset
        loop = checked_loop(request.loop)
        record = series_record(run, self.check(request), loop, await self._loops.source(run.run.model))
        for other, standing in await history.begun_by(dataset, run.id):
            if other.id != record.id and not standing.settled(repeatable=False):
                await self._want(other.id, pb.RUN_STATE_CANCELLED, REPLACED)
        async with RunStore(dataset) as store:
            await store.append(record)
        await self._want(record.id, pb.RUN_STATE_RUNNING, "asked for")

    async def want(self, run_id: str, wanted: pb.RunState.ValueType, reason: str) -> bool:
        """Record the wanted state of the series that a run belongs to, if it is unfinished.

        Its controller then pauses, cancels or resumes the current round's run and loop.

        Args:
            run_id: Id of the Run record of any round.
            wanted: RUNNING, PAUSED or CANCELLED.
            reason: Reason to show to users.

        Returns:
            Whether there is such a series.
        """
        found = await history.series_of(self._services.dataset, run_id)
        if found is None or found[1].state == pb.RUN_STATE_SUCCEEDED:
            return False
        series, standing = found
        has_ended = standing.settled(repeatable=False) and standing.state != pb.RUN_STATE_PAUSED
        if wanted != pb.RUN_STATE_RUNNING and has_ended:
            return False
        await self._want(series.id, wanted, reason)
        return True

    async def status(self, run_id: str, loops: Sequence[pb.Record] | None = None) -> api.SeriesStatus | None:
        """Return the current status of the series that a run belongs to, or None if there is none.

        Args:
            run_id: Id of the Run record of any round.
            loops: The run's loops, if already read.
        """
        found = await history.series_of(self._services.dataset, run_id, loops)
        if found is None:
            return None
        series, standing = found
        settled = standing.settled(repeatable=False)
        status = api.SeriesStatus(
            id=series.id,
            config=series.round_series,
            state=standing.state if settled else pb.RUN_STATE_RUNNING,
            message=standing.message if settled else "",
            rounds=await self._begun(series.id),
        )
        assignment = self._assigned(series.id)
        if not settled and assignment is not None:
            waits = assignment.waiting.text
            status.message = f"waiting for {waits}" if waits else assignment.message
        return status

    async def _begun(self, series_id: str) -> list[pb.Round]:
        """Return the rounds whose runs exist: a round is recorded before its run is, and its model is loaded first."""
        rounds = await history.rounds_of(self._services.dataset, series_id)
        there = (await self._services.dataset.get(ds.GetRequest(ids=[each.run for each in rounds[-1:]]))).records
        return rounds if there else rounds[:-1]

    async def _want(self, series_id: str, wanted: pb.RunState.ValueType, reason: str) -> None:
        request = await requests.want(self._services.dataset, series_id, wanted, reason)
        if request is not None:
            self._poke(series_id, request.attempt)


def has_settled(status: api.RunStatus) -> bool:
    """Return whether a run, its loop and, while it is the current round, its series will not change without a request.

    Watching a run then ends.
    """
    series = status.series
    if status.HasField("series") and series.state == pb.RUN_STATE_RUNNING:
        return bool(series.rounds) and all(each.run != status.id for each in series.rounds[-1:])
    return loop_has_settled(status)
