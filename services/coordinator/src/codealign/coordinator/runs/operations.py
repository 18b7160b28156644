"""Operations on runs for callers: create, pause, resume, cancel, rejudge, find, list, and report status.

A call records a request and returns; a controller (`controller`) in this or another coordinator carries it out. The
status comes from the controller if it runs in this process, otherwise from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError, FailedPrecondition
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.finding import find
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.checks import set_by_service, set_by_service_in_execution
from codealign.coordinator.runs.config import run_records
from codealign.coordinator.runs.controller import RunWorkload
from codealign.coordinator.runs.progress import empty_progress, stored_progress
from codealign.coordinator.runs.resolve import notes_of, resolved
from codealign.coordinator.settings import CoordinatorSettings

LISTED_AT_ONCE = 16

ENDING: Mapping[pb.RunState.ValueType, str] = {
    pb.RUN_STATE_PAUSED: "pausing: in-flight work is being finished",
    pb.RUN_STATE_CANCELLED: "cancelling",
}
"""Messages for runs that are being paused or cancelled."""


class Runs:
    """All runs in the store.

    Args:
        settings: The coordinator's settings.
        services: All services except training are used.
        benchmarks: Texts that must not occur in a seed or a row.
        workload: The runs that this coordinator is working on.
        poke: Called after each request.
        assigned: Subjects whose leases this coordinator holds, by id.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        services: Services,
        benchmarks: BenchmarkTexts,
        workload: RunWorkload,
        poke: requests.Poke,
        assigned: Mapping[str, Assignment],
    ) -> None:
        self._settings, self._services, self._benchmarks = settings, services, benchmarks
        self._workload, self._poke, self._assigned = workload, poke, assigned

    async def prepare(
        self, given: pb.Run, path: str = "config.", *, seeds_exist: bool = True
    ) -> tuple[pb.Run, list[str]]:
        """Return a caller's full configuration, and notes for users; see `resolve.resolved`.

        Raises:
            InvalidArgument: Names every invalid field, including those that only the service sets.
        """
        wrong = [(f"{path}{field}", text) for field, text in set_by_service(given)]
        return await resolved(given, self._services, self._benchmarks, wrong, path=path, seeds_exist=seeds_exist)

    async def create(self, run: pb.Run) -> tuple[pb.Record, bool]:
        """Record a request for a run. The same configuration is the same run, which resumes where it stopped.

        Args:
            run: The full configuration.

        Returns:
            The run's record, and whether it already existed.
        """
        self.must_work()
        config, record = run_records(run)
        dataset = self._services.dataset
        there = (await dataset.get(ds.GetRequest(ids=[record.id]))).records
        if there:
            await self.want(there[0], pb.RUN_STATE_RUNNING, "started again")
            return there[0], True
        started = pb.RunRequest(wanted=pb.RUN_STATE_RUNNING, reason="started")
        request = await requests.append(dataset, record.id, started, 0, first=[config, record])
        self._poke(record.id, request.attempt)
        return record, False

    async def rejudge(self, request: api.RejudgeRunRequest) -> tuple[pb.Record, bool]:
        """Record a request for a run that parses and judges the completions of another run again.

        Returns:
            The new run's record (the old one's if nothing has changed since), and whether it already existed.

        Raises:
            FailedPrecondition: The old run is still running.
            InvalidArgument: Names every invalid field.
        """
        self.must_work()
        old = await self.find(request.run)
        if not (await requests.standing(self._services.dataset, old.id)).settled(repeatable=False):
            raise FailedPrecondition(f"run {old.id[:12]} is still running: wait until it has ended, or pause it")
        wrong = set_by_service_in_execution(request.execution)
        run, _ = await resolved(_again(old, request), self._services, self._benchmarks, wrong, path="")
        return await self.create(run)

    async def want(self, run: pb.Record, wanted: pb.RunState.ValueType, reason: str) -> None:
        """Record the requested state of a run unless it is already requested.

        Raises:
            FailedPrecondition: The run has ended and can no longer be paused or cancelled.
        """
        self.must_work()
        request = await requests.want(self._services.dataset, run.id, wanted, reason)
        if request is not None:
            self._poke(run.id, request.attempt)

    def must_work(self) -> None:
        """Refuse a request for work if this coordinator only reports; see `CoordinatorSettings.must_work`."""
        self._settings.must_work()

    async def find(self, text: str) -> pb.Record:
        """Return a run by its id, its id's first digits, or its name; see `finding.find`."""
        return await find(self._services.dataset, self._assigned, pb.KIND_RUN, text, "codealign ls")

    async def status(
        self, run: pb.Record, standing: Standing | None = None, *, summary_only: bool = False
    ) -> api.RunStatus:
        """Return the run's current status, without its loop. RUNNING includes runs whose last request is still pending.

        Args:
            run: The run's record.
            standing: The run's state, if already read.
            summary_only: Leave out the progress of runs that this coordinator is not working on.
        """
        assignment = self._assigned.get(run.id)
        if assignment is not None and assignment.standing.request is not None:
            standing = assignment.standing
        elif standing is None:
            standing = await requests.standing(self._services.dataset, run.id)
        settled = standing.settled(repeatable=False)
        status = api.RunStatus(
            id=run.id,
            config=run.run,
            state=standing.state if settled else pb.RUN_STATE_RUNNING,
            message=standing.message if settled else _doing(standing, assignment),
            version=standing.event.run_event.version if settled and standing.event else "",
            created_at=run.provenance.created_at,
            wanted=standing.wanted,
            waiting_for=assignment.waiting.text if assignment else "",
        )
        try:
            if not summary_only or run.id in self._workload.live:
                status.stages.extend((await self._progress(run, assignment)).to_wire())
            status.notes.extend(notes_of(run.run))
            if (live := self._workload.live.get(run.id)) and live.forecast is not None:
                status.forecast.CopyFrom(live.forecast())
        except FailedPrecondition as error:  # created by another release
            status.notes.append(error.message)
        return status

    async def _progress(self, run: pb.Record, assignment: Assignment | None) -> Progress:
        if live := self._workload.live.get(run.id):
            return live
        try:
            response = await self._services.dataset.count(ds.CountRequest(collection=run.id))
        except CodeAlignError:
            if assignment is None:
                raise
            return empty_progress(run.run)  # about to start or end; the status says what it is waiting for
        return stored_progress(run.run, response.counts)

    async def list(self, standings: Mapping[str, Standing], *, summary_only: bool) -> list[api.RunStatus]:
        """Return every run, newest first.

        Args:
            standings: States of all subjects.
            summary_only: As in `status`; avoids a call for each run.
        """
        runs = await requests.scan(self._services.dataset, ds.ScanRequest(kind=pb.KIND_RUN))
        slots = asyncio.Semaphore(LISTED_AT_ONCE)

        async def status(run: pb.Record) -> api.RunStatus:
            async with slots:
                return await self.status(run, standings.get(run.id, Standing()), summary_only=summary_only)

        found = await asyncio.gather(*(status(run) for run in runs))
        return sorted(found, key=lambda status: status.created_at.ToNanoseconds(), reverse=True)


def _doing(standing: Standing, assignment: Assignment | None) -> str:
    if standing.wanted in ENDING:
        return ENDING[standing.wanted]
    if assignment is None:
        return "waiting for a coordinator" if standing.state != pb.RUN_STATE_RUNNING else ""
    return assignment.message


def _again(old: pb.Record, request: api.RejudgeRunRequest) -> pb.Run:
    """Return the configuration of an old run, to be completed with current versions and images."""
    run = pb.Run()
    run.CopyFrom(old.run)
    run.name, run.rejudges = request.name, old.id
    run.selection.rules_version = 0
    for stage in run.stages:
        stage.version = 0
    execution, given = run.execution, request.execution
    execution.image_digest = execution.python_version = ""
    if given.profile and given.profile != execution.profile:
        execution.ClearField("limits")  # they belong to another profile
        execution.profile = given.profile
    execution.limits.MergeFrom(given.limits)  # unset fields keep the run's values
    execution.runs = given.runs or execution.runs
    return run
