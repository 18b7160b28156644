"""Operations on experiments for callers: create, pause, resume, cancel, find, list, and report status and results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import FailedPrecondition
from codealign.coordinator.evaluation.history import boards_of
from codealign.coordinator.experiments import history, results
from codealign.coordinator.experiments.cells import experiment_record, trained
from codealign.coordinator.experiments.request import Checks
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.finding import find
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.loops.controller import NO_ADDRESS
from codealign.coordinator.settings import CoordinatorSettings


class Experiments:
    """All experiments in the store.

    Args:
        settings: The coordinator's settings.
        services: Clients of the other services; the store is used.
        checks: Validates what callers request.
        poke: Called after each request.
        assigned: Subjects whose leases this coordinator holds, by id.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        services: Services,
        checks: Checks,
        poke: requests.Poke,
        assigned: Mapping[str, Assignment],
    ) -> None:
        self._settings, self._services, self._checks = settings, services, checks
        self._poke, self._assigned = poke, assigned

    async def prepare(self, given: pb.Experiment) -> pb.Record:
        """Return the record of an experiment with every default filled in.

        Raises:
            FailedPrecondition: This coordinator cannot carry out experiments.
            InvalidArgument: Names everything that is invalid or impossible.
        """
        self._settings.must_work()
        if any(trained(arm) for arm in given.arms) and not self._settings.training_address:
            raise FailedPrecondition(NO_ADDRESS)
        return experiment_record(await self._checks.completed(given))

    async def create(self, record: pb.Record) -> tuple[pb.Record, bool]:
        """Request an experiment. An existing one resumes where it stopped.

        Returns:
            The stored record, and whether it already existed.
        """
        dataset = self._services.dataset
        there = (await dataset.get(ds.GetRequest(ids=[record.id]))).records
        if there:
            await self.want(there[0], pb.RUN_STATE_RUNNING, "started again")
            return there[0], True
        started = pb.RunRequest(wanted=pb.RUN_STATE_RUNNING, reason="started")
        request = await requests.append(dataset, record.id, started, 0, first=[record])
        self._poke(record.id, request.attempt)
        return record, False

    async def want(self, experiment: pb.Record, wanted: pb.RunState.ValueType, reason: str) -> None:
        """Record the requested state of an experiment unless it is already requested.

        Raises:
            FailedPrecondition: The experiment has ended and can no longer be paused or cancelled.
        """
        self._settings.must_work()
        request = await requests.want(self._services.dataset, experiment.id, wanted, reason)
        if request is not None:
            self._poke(experiment.id, request.attempt)

    async def find(self, text: str) -> pb.Record:
        """Return an experiment by its id, its id's first digits, or its name; see `finding.find`."""
        return await find(self._services.dataset, self._assigned, pb.KIND_EXPERIMENT, text, "codealign experiment ls")

    async def status(self, experiment: pb.Record) -> api.ExperimentStatus:
        """Return the current status of an experiment with its cells."""
        status, _ = await self._read(experiment)
        return status

    async def result(self, experiment: pb.Record) -> api.GetExperimentResponse:
        """Return an experiment with the results of the cells that have ended successfully."""
        status, found = await self._read(experiment)
        revisions = {settings.model.revision for cell in found for settings in cell.evaluations}
        async with RunStore(self._services.dataset) as store:
            boards = await boards_of(store, sorted(revisions))
        result = await asyncio.to_thread(results.build, experiment.experiment, found, boards)
        return api.GetExperimentResponse(experiment=status, result=result)

    async def _read(self, experiment: pb.Record) -> tuple[api.ExperimentStatus, list[history.Cell]]:
        dataset = self._services.dataset
        standing = await requests.standing(dataset, experiment.id)
        status = self._summary(experiment, standing)
        settled = standing.settled(repeatable=False)
        found = await history.read(dataset, experiment.experiment, settled=settled)
        status.cells.extend(cell.status for cell in found)
        return status, found

    def _summary(self, record: pb.Record, standing: Standing) -> api.ExperimentStatus:
        settled = standing.settled(repeatable=False)
        assignment = self._assigned.get(record.id)
        return api.ExperimentStatus(
            id=record.id,
            config=record.experiment,
            state=standing.state if settled else pb.RUN_STATE_RUNNING,
            message=standing.message if settled else assignment.message if assignment else "",
            wanted=standing.wanted,
            created_at=record.provenance.created_at,
            waiting_for=assignment.waiting.text if assignment and not settled else "",
        )

    async def list(self) -> list[api.ExperimentStatus]:
        """Return every experiment without its cells, newest first."""
        standings = await requests.standings(self._services.dataset)
        records = await requests.scan(self._services.dataset, ds.ScanRequest(kind=pb.KIND_EXPERIMENT))
        found = [self._summary(record, standings.get(record.id, Standing())) for record in records]
        return sorted(found, key=lambda status: status.created_at.ToNanoseconds(), reverse=True)
