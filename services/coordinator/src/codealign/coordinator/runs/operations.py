"""Runs as callers see them: made, paused, resumed, cancelled, judged again, found, listed, told of.

A call records what is wanted and returns; a controller (`controller`) makes it so, in this coordinator or in another
one. What is told of a run comes from the controller where it is this coordinator's, else from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError, FailedPrecondition, InvalidArgument, NotFound
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment
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

MIN_PREFIX = 6
LISTED_AT_ONCE = 16
_ID_DIGITS = 32

ENDING: Mapping[pb.RunState.ValueType, str] = {
    pb.RUN_STATE_PAUSED: "pausing: what is in flight is finished",
    pb.RUN_STATE_CANCELLED: "cancelling",
}
"""What a run at work is told to do, in words."""


class Runs:
    """All runs of the store.

    Args:
        settings: The coordinator's.
        services: All but training are used.
        benchmarks: Texts that must not occur in a seed or a row.
        workload: What this coordinator works on.
        poke: Told of every request.
        assigned: By the subject's id: what this coordinator holds the lease of.
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

    async def prepare(self, given: pb.Run) -> tuple[pb.Run, list[str]]:
        """Return a caller's configuration with everything filled in, and notes for a person; see `resolve.resolved`.

        Raises:
            InvalidArgument: Names every field that is wrong, those that only the service sets included.
        """
        wrong = [(f"config.{field}", text) for field, text in set_by_service(given)]
        return await resolved(given, self._services, self._benchmarks, wrong)

    async def create(self, run: pb.Run) -> tuple[pb.Record, bool]:
        """Record that a run is wanted. The same configuration is the same run, which goes on where it stopped.

        Args:
            run: Its configuration, with everything filled in.

        Returns:
            The run's record, and whether it was there.
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
        """Record that a run is wanted that reads and judges the completions of another one again.

        Returns:
            The new run's record (the old one's, where nothing has changed since), and whether it was there.

        Raises:
            FailedPrecondition: The run is at work.
            InvalidArgument: Names every field that is wrong.
        """
        self.must_work()
        old = await self.find(request.run)
        if not (await requests.standing(self._services.dataset, old.id)).settled(repeatable=False):
            raise FailedPrecondition(f"run {old.id[:12]} is at work: wait until it has ended, or pause it")
        wrong = set_by_service_in_execution(request.execution)
        run, _ = await resolved(_again(old, request), self._services, self._benchmarks, wrong, path="")
        return await self.create(run)

    async def want(self, run: pb.Record, wanted: pb.RunState.ValueType, reason: str) -> None:
        """Record what is wanted of a run, where that is not the case already.

        Raises:
            FailedPrecondition: It has ended: there is nothing to pause or to cancel.
        """
        self.must_work()
        request = await requests.want(self._services.dataset, run.id, wanted, reason)
        if request is not None:
            self._poke(run.id, request.attempt)

    def must_work(self) -> None:
        """Raise FailedPrecondition where this coordinator only reads."""
        if self._settings.reads_only:
            raise FailedPrecondition("this coordinator takes no runs up: CODEALIGN_COORDINATOR_READS_ONLY is set")

    async def find(self, text: str) -> pb.Record:
        """A run by its id, its id's first digits, or its name.

        A run that this coordinator works on is found by its id also while the store is away.

        Raises:
            NotFound: No run, or several, match.
        """
        if not text:
            raise InvalidArgument("run", "name a run: its id, the id's first digits, or its name")
        if assignment := self._assigned.get(text):
            return assignment.subject
        if len(text) == _ID_DIGITS and set(text) <= set("0123456789abcdef"):
            there = (await self._services.dataset.get(ds.GetRequest(ids=[text]))).records
            if there and there[0].kind == pb.KIND_RUN:
                return there[0]
        matches = [
            record
            for record in await self._all()
            if record.run.name == text or (len(text) >= MIN_PREFIX and record.id.startswith(text))
        ]
        if len(matches) != 1:
            known = "no run matches" if not matches else f"{len(matches)} runs match"
            raise NotFound(f"{known} {text!r}; see `codealign ls` for the ids")
        return matches[0]

    async def _all(self) -> list[pb.Record]:
        return await requests.scan(self._services.dataset, ds.ScanRequest(kind=pb.KIND_RUN))

    async def status(
        self, run: pb.Record, standing: Standing | None = None, *, summary_only: bool = False
    ) -> api.RunStatus:
        """The run as it is now, what follows it aside. RUNNING as well where what was asked for is not yet the case.

        Args:
            run: Its record.
            standing: Where it was read already.
            summary_only: Without the progress of a run that this coordinator does not work on.
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
            status.notes.extend(notes_of(run.run.selection.forbidden_texts_sha256))
        except FailedPrecondition as error:  # of another release
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
            return empty_progress(run.run)  # it begins or ends in a moment, and says what it waits for
        return stored_progress(run.run, response.counts)

    async def list(self, standings: Mapping[str, Standing], *, summary_only: bool) -> list[api.RunStatus]:
        """Every run, newest first.

        Args:
            standings: Of all subjects.
            summary_only: As in `status`: no call for each run.
        """
        runs = await self._all()
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
        return "a coordinator takes it up" if standing.state != pb.RUN_STATE_RUNNING else ""
    return assignment.message


def _again(old: pb.Record, request: api.RejudgeRunRequest) -> pb.Run:
    """The configuration of an old run, to be completed with what is there now."""
    run = pb.Run()
    run.CopyFrom(old.run)
    run.name, run.rejudges = request.name, old.id
    run.selection.rules_version = 0
    for stage in run.stages:
        stage.version = 0
    execution, given = run.execution, request.execution
    execution.image_digest = execution.python_version = ""
    if given.profile and given.profile != execution.profile:
        execution.ClearField("limits")  # those of another profile
        execution.profile = given.profile
    execution.limits.MergeFrom(given.limits)  # of unset fields, the run's stay
    execution.runs = given.runs or execution.runs
    return run
