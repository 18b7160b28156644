"""Progress of a loop's steps, from its records and the training service."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.errors import CodeAlignError
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.request import checked, job_record
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.loops import history
from codealign.coordinator.loops.request import base_evaluations, tuned_evaluations
from codealign.coordinator.settings import CoordinatorSettings

BASE_STEP, TRAINING_STEP, TUNED_STEP = "evaluate the base model", "train", "evaluate the tuned model"

_STATES = {
    tr.TRAINING_STATE_PENDING: pb.RUN_STATE_RUNNING,
    tr.TRAINING_STATE_RUNNING: pb.RUN_STATE_RUNNING,
    tr.TRAINING_STATE_SUCCEEDED: pb.RUN_STATE_SUCCEEDED,
    tr.TRAINING_STATE_FAILED: pb.RUN_STATE_FAILED,
    tr.TRAINING_STATE_CANCELLED: pb.RUN_STATE_CANCELLED,
}


class Steps:
    """Reports the progress of loop steps.

    Args:
        settings: Coordinator settings.
        services: Clients of the other services; the store and training are used.
        evaluations: Operations on the evaluations of loops.
    """

    def __init__(self, settings: CoordinatorSettings, services: Services, evaluations: Evaluations) -> None:
        self._settings, self._services, self._evaluations = settings, services, evaluations

    async def of(self, record: pb.Record, state: pb.RunState.ValueType) -> list[api.LoopStep]:
        """Return a loop's steps, in order.

        Args:
            record: The Loop record.
            state: State of the loop.
        """
        loop = record.loop
        run = (await self._services.dataset.get(ds.GetRequest(ids=record.parents[:1]))).records[0].run
        steps = [
            await self._evaluation(name, settings) for name, settings in _named(BASE_STEP, base_evaluations(loop, run))
        ]
        training_id = await history.submitted(self._services.dataset, record.id)
        training, step = await self._training(training_id, state)
        steps.append(step)
        made = await history.checkpoint(self._services.dataset, training) if training else None
        revision = made.revision if made else ""
        for name, settings in _named(TUNED_STEP, tuned_evaluations(loop, run, training_id, revision)):
            steps.append(await self._evaluation(name, settings) if made else api.LoopStep(name=name))
        return steps

    async def _evaluation(self, name: str, settings: pb.EvaluationSettings) -> api.LoopStep:
        job = job_record(checked(settings))
        standing = await self._evaluations.standing(job.id)
        step = api.LoopStep(name=name, message=", ".join(settings.benchmarks))
        if standing.request is None:
            return step
        step.id = job.id
        if not standing.settled(repeatable=True):
            step.state = pb.RUN_STATE_RUNNING
            step.done, step.total = self._evaluations.progress(job.id)
            return step
        step.state, step.message = standing.state, standing.message
        return step

    async def _training(
        self, training_id: str, state: pb.RunState.ValueType
    ) -> tuple[tr.Training | None, api.LoopStep]:
        step = api.LoopStep(name=TRAINING_STEP, id=training_id)
        if not training_id:
            return None, step
        try:
            if not self._settings.training_address:
                raise CodeAlignError("training service address is not configured")
            training = (await self._services.training.get(tr.GetTrainingRequest(id=training_id))).training
        except CodeAlignError as error:
            step.state = state
            step.message = "" if state == pb.RUN_STATE_SUCCEEDED else error.message
            return None, step
        step.state = _STATES.get(training.state, pb.RUN_STATE_UNSPECIFIED)
        step.done, step.total = training.step, training.total_steps
        step.message = _line(training)
        return training, step


def _line(training: tr.Training) -> str:
    if training.state == tr.TRAINING_STATE_RUNNING and training.step:
        left = f", {training.seconds_left:,.0f} s left" if training.HasField("seconds_left") else ""
        return f"loss {training.loss:.4f}{left}"
    return training.message


def _named(name: str, settings: Sequence[pb.EvaluationSettings]) -> list[tuple[str, pb.EvaluationSettings]]:
    """Pair each evaluation with its step name, numbered if there are several."""
    count = len(settings)
    return [(name if count == 1 else f"{name} ({at} of {count})", each) for at, each in enumerate(settings, 1)]
