"""Caller-facing operations on loops, which are created, paused, resumed and cancelled together with their run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import FailedPrecondition, InvalidArgument
from codealign.coordinator.evaluation import models
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.prompts import BASE
from codealign.coordinator.evaluation.request import checked as checked_evaluation
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.ground.requests import Standing
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.loops import history
from codealign.coordinator.loops.controller import NO_ADDRESS, REPLACED
from codealign.coordinator.loops.request import checked, loop_record
from codealign.coordinator.loops.status import Steps
from codealign.coordinator.settings import CoordinatorSettings

Assigned = Callable[[str], Assignment | None]
"""Lookup of this coordinator's assignment by subject id; see `Controllers.assigned`."""


class Loops:
    """All loops in the store.

    Args:
        settings: Coordinator settings.
        services: Clients of the other services; the sandbox is not used.
        evaluations: Operations on the evaluations of loops.
        poke: Called after every new request.
        assigned: Lookup of this coordinator's assignments.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        services: Services,
        evaluations: Evaluations,
        poke: requests.Poke,
        assigned: Assigned,
    ) -> None:
        self._settings, self._services, self._evaluations = settings, services, evaluations
        self._poke, self._assigned = poke, assigned

    async def check(self, loop: pb.Loop) -> None:
        """Check that a loop can run, so that it does not fail hours later. Call before the run is recorded.

        Raises:
            InvalidArgument: Names every invalid field.
            NotFound: A benchmark's problems cannot be loaded.
            FailedPrecondition: A benchmark cannot be read, or this coordinator has no training service.
        """
        if not self._settings.training_address:
            raise FailedPrecondition(NO_ADDRESS)
        for settings in checked(loop).evaluations:
            await self._evaluations.load(checked_evaluation(settings, style=BASE))

    async def source(self, model: pb.ModelChoice) -> str:
        """Return the location that inference loaded a run's model from. Call before the run is recorded.

        Args:
            model: The run's model, with its name and revision.

        Raises:
            InvalidArgument: The name and the revision do not match, or no model is named.
            NotFound: The model is not loaded.
        """
        listed = await self._services.inference.list_models(inf.ListModelsRequest())
        if not model.model:
            loaded = ", ".join(sorted(each.name for each in listed.models)) or "none"
            raise InvalidArgument(
                "config.model.model",
                "must be set: no model writes in this run, so name the one to train and evaluate; loaded: " + loaded,
            )
        found = models.chosen(model, listed.models, BASE, "config")
        if found.name != model.model:
            short = model.revision[:12]
            raise InvalidArgument(
                "config.model.model", f"inference serves revision {short} as {found.name}, not as {model.model}"
            )
        return found.source

    async def wanted(self, run: pb.Record, loop: pb.Loop) -> None:
        """Request a loop for a run. An identical loop is the same record and resumes where it stopped.

        Cancels any other unfinished loop of the run, without stopping its evaluations and training, which this loop
        may use.

        Args:
            run: The stored Run record.
            loop: Loop from the request.

        Raises:
            InvalidArgument: Names every invalid field.
            NotFound: The run's model is not loaded.
        """
        await self.start(run, loop_record(run, checked(loop), await self.source(run.run.model)))

    async def start(self, run: pb.Record, record: pb.Record) -> None:
        """Request a loop by its record, and cancel any other unfinished loop of the run as `wanted` does."""
        for other, standing in await history.loops_of(self._services.dataset, run.id):
            if other.id != record.id and not standing.settled(repeatable=False):
                await self._want(other.id, pb.RUN_STATE_CANCELLED, REPLACED)
        async with RunStore(self._services.dataset) as store:
            await store.append(record)
        await self._want(record.id, pb.RUN_STATE_RUNNING, "asked for")

    async def want(self, run_id: str, wanted: pb.RunState.ValueType, reason: str) -> bool:
        """Record the wanted state of a run's loop, if it has an unfinished one.

        A pause stops evaluations and starts no new step, but a running training continues. A cancellation stops the
        training too.

        Args:
            run_id: Id of the Run record.
            wanted: RUNNING, PAUSED or CANCELLED.
            reason: Reason to show to users.

        Returns:
            Whether there is such a loop.
        """
        found = await history.loops_of(self._services.dataset, run_id)
        if not found or found[-1][1].state == pb.RUN_STATE_SUCCEEDED:
            return False
        loop, standing = found[-1]
        if wanted != pb.RUN_STATE_RUNNING and standing.settled(repeatable=False):
            return False
        await self._want(loop.id, wanted, reason)
        return True

    async def status(self, run_id: str, found: Sequence[history.Stood] | None = None) -> api.LoopStatus | None:
        """Return the current status of a run's loop, or None if it has none.

        Args:
            run_id: Id of the Run record.
            found: The run's loops in the order of their latest requests, if already read.
        """
        found = await history.loops_of(self._services.dataset, run_id) if found is None else found
        if not found:
            return None
        loop, standing = found[-1]
        status = self._summary(loop, standing)
        steps = Steps(self._settings, self._services, self._evaluations)
        status.steps.extend(await steps.of(loop, status.state))
        return status

    async def list(self, standings: Mapping[str, Standing]) -> dict[str, api.LoopStatus]:
        """Return the status of every run's loop, without its steps, by run id.

        Args:
            standings: Wanted and actual states of all subjects, by id.
        """
        found = await history.last_loops(self._services.dataset, standings)
        return {run_id: self._summary(*stood) for run_id, stood in found.items()}

    def _summary(self, loop: pb.Record, standing: Standing) -> api.LoopStatus:
        """Return a loop's status without its steps, which may require a call to the training service."""
        settled = standing.settled(repeatable=False)
        assignment = self._assigned(loop.id)
        status = api.LoopStatus(
            id=loop.id,
            config=loop.loop,
            state=standing.state if settled else pb.RUN_STATE_RUNNING,
            message=standing.message if settled else "",
        )
        if not settled and assignment is not None:
            waits = assignment.waiting.text
            status.message = f"waiting for {waits}" if waits else assignment.message
        return status

    async def _want(self, loop_id: str, wanted: pb.RunState.ValueType, reason: str) -> None:
        self._settings.must_work()
        request = await requests.want(self._services.dataset, loop_id, wanted, reason)
        if request is not None:
            self._poke(loop_id, request.attempt)


def has_settled(status: api.RunStatus) -> bool:
    """Return whether a run and its loop will not change without a new request, so that watching them ends."""
    if status.state == pb.RUN_STATE_RUNNING:
        return False
    follows = status.state == pb.RUN_STATE_SUCCEEDED and status.HasField("loop")
    return not follows or status.loop.state != pb.RUN_STATE_RUNNING
