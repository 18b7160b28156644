"""Controller of loops: evaluate the run's model, train, evaluate the tuned model.

The state of each step is in the store or the training service, and is read before acting. A controller that takes over
a loop therefore never repeats a finished step or submits a second training. See `ground.control`.
"""

from __future__ import annotations

import asyncio
import contextlib

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.errors import CodeAlignError, NotFound
from codealign.common.logs import get_logger
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.request import checked, job_record
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment, Outcome
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.loops import history
from codealign.coordinator.loops.models import POLL_SECONDS, Models
from codealign.coordinator.loops.request import base_evaluations, training_of, tuned_evaluations
from codealign.coordinator.settings import CoordinatorSettings

log = get_logger(__name__)
NO_ADDRESS = "no training service is configured: set CODEALIGN_COORDINATOR_TRAINING_ADDRESS, or leave the training out"
NO_ROWS = "the run kept no rows to train on; use more seeds"
REPLACED = "another loop of the same run was asked for"
"""Reason of a cancellation that stops neither evaluations nor training, since the new loop may use them."""


class LoopWorkload:
    """Execution of Loops; implements `control.Workload` and `control.Stoppable`.

    Args:
        settings: Coordinator settings.
        services: Clients of the other services; the sandbox is not used.
        evaluations: Used to start and watch evaluations.
        poll_seconds: Seconds between polls.
    """

    kind = pb.KIND_LOOP
    prefix = "loop"
    repeatable = False

    def __init__(
        self,
        settings: CoordinatorSettings,
        services: Services,
        evaluations: Evaluations,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._settings, self._services, self._evaluations = settings, services, evaluations
        self._poll_seconds = poll_seconds
        self._models = Models(services.inference, evaluations, poll_seconds)

    async def work(self, assignment: Assignment) -> Outcome:
        """Run the remaining steps of a loop; see `control.Workload.work`."""
        if not self._settings.training_address:
            raise RunFailed(NO_ADDRESS)
        loop, run = assignment.subject.loop, await self._run(assignment)
        version = await self._version(assignment)
        for settings in base_evaluations(loop, run):
            await self._models.evaluate(assignment, settings, loop.training.model, one_model=loop.one_model)
        training = await self._train(assignment, version)
        if loop.evaluations:
            made = await history.checkpoint(self._services.dataset, training)
            if made is None:
                raise RunFailed(
                    f"the store has no checkpoint {training.checkpoint_id} of training {training.id[:12]}: check that "
                    "training and coordinator use the same store"
                )
            for settings in tuned_evaluations(loop, run, training.id, made.revision):
                await self._models.evaluate(assignment, settings, made.artifact_url, one_model=loop.one_model)
        return Outcome(f"tuned on {version} by training {training.id[:12]}")

    async def stop(self, assignment: Assignment) -> None:
        """Stop the loop's evaluations and wait for that; if the loop is cancelled, stop its training too.

        Called before a pause or cancellation is recorded. A pause does not stop the training.
        """
        request = assignment.standing.request
        assert request is not None
        wanted, reason = request.run_request.wanted, request.run_request.reason
        if reason == REPLACED:
            return
        jobs = await self._jobs(assignment)
        for job_id in jobs:
            standing = await self._evaluations.standing(job_id)
            if standing.wanted == pb.RUN_STATE_RUNNING and not standing.settled(repeatable=True):
                await self._evaluations.want(job_id, wanted, reason)
        training = await history.submitted(self._services.dataset, assignment.subject.id)
        if training and wanted == pb.RUN_STATE_CANCELLED and self._settings.training_address:
            try:
                await self._services.training.cancel(tr.CancelTrainingRequest(id=training))
            except NotFound:
                log.info("training_gone", training_id=training)
        for job_id in jobs:
            await requests.obeyed(self._services.dataset, job_id, wanted, self._poll_seconds, repeatable=True)

    async def _jobs(self, assignment: Assignment) -> list[str]:
        """Return the ids of the loop's evaluation jobs, as far as they are known."""
        loop, run = assignment.subject.loop, await self._run(assignment)
        wanted = base_evaluations(loop, run)
        training_id = await history.submitted(self._services.dataset, assignment.subject.id)
        if training_id and loop.evaluations and self._settings.training_address:
            with contextlib.suppress(NotFound):
                made = await history.checkpoint(self._services.dataset, await self._training(training_id))
                wanted += tuned_evaluations(loop, run, training_id, made.revision) if made else []
        return [job_record(checked(settings)).id for settings in wanted]

    async def _run(self, assignment: Assignment) -> pb.Run:
        parent = assignment.subject.parents[0]
        return (await assignment.store.get([parent]))[parent].run

    async def _version(self, assignment: Assignment) -> str:
        """Wait for the run's dataset version and return it."""
        run_id = assignment.subject.parents[0]
        while True:
            standing = await requests.standing(self._services.dataset, run_id)
            if standing.state == pb.RUN_STATE_SUCCEEDED:
                if standing.event is None or not standing.event.run_event.version:
                    raise RunFailed(NO_ROWS)
                return standing.event.run_event.version
            state = pb.RunState.Name(standing.state).removeprefix("RUN_STATE_").lower()
            is_at_work = standing.state in (pb.RUN_STATE_UNSPECIFIED, pb.RUN_STATE_RUNNING)
            assignment.say("waiting for the run" if is_at_work else f"waiting for the run, which is {state}")
            await self._models.pause(assignment)

    async def _train(self, assignment: Assignment, version: str) -> tr.Training:
        """Run the training and return it once it has succeeded.

        A failed or cancelled training is submitted again, and resumes, at the loop's next request.
        """
        loop_id, number = assignment.subject.id, assignment.standing.number
        training_id = await history.submitted(self._services.dataset, loop_id, number)
        if not training_id:
            assignment.gate()
            training_id = await self._submit(assignment, version)
        while True:
            training = await self._training(training_id)
            short = training_id[:12]
            if training.state == tr.TRAINING_STATE_SUCCEEDED:
                return training
            if training.state == tr.TRAINING_STATE_FAILED:
                raise RunFailed(f"training {short} failed: {training.message}")
            if training.state == tr.TRAINING_STATE_CANCELLED:
                raise RunFailed(f"training {short} was cancelled; resume the loop to continue it")
            assignment.say("training")
            await self._models.pause(assignment)

    async def _submit(self, assignment: Assignment, version: str) -> str:
        """Submit the training and record its id, even if cancelled meanwhile, so that the training can be stopped."""

        async def submit() -> str:
            request = tr.SubmitTrainingRequest(spec=training_of(assignment.subject.loop, version))
            training = (await self._services.training.submit(request)).training
            event = pb.RunEvent(state=pb.RUN_STATE_RUNNING, message="training", training=training.id)
            await assignment.record(event)
            log.info("training_submitted", loop_id=assignment.subject.id, training_id=training.id)
            return training.id

        submitting = asyncio.create_task(submit())
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            await asyncio.wait([submitting])
            if not submitting.cancelled() and isinstance(error := submitting.exception(), CodeAlignError):
                log.info("training_not_submitted", loop_id=assignment.subject.id, message=error.message)
            raise

    async def _training(self, training_id: str) -> tr.Training:
        return (await self._services.training.get(tr.GetTrainingRequest(id=training_id))).training
