"""Fake training service: a test decides when trainings end."""

from __future__ import annotations

import hashlib

from codealign.api.training.v1 import training_pb2 as tr
from codealign.common.errors import NotFound
from fakes.control import Control

ENDED = (tr.TRAINING_STATE_SUCCEEDED, tr.TRAINING_STATE_FAILED, tr.TRAINING_STATE_CANCELLED)


class FakeTraining:
    """Training without weights.

    Args:
        at_once: Whether a training succeeds as soon as it is submitted.
    """

    def __init__(self, *, at_once: bool = True) -> None:
        self.control = Control("training")
        self.at_once = at_once
        self.trainings: dict[str, tr.Training] = {}

    def finish(self, training_id: str, message: str = "") -> None:
        """End a training: it succeeds, or fails if a message is given."""
        training = self.trainings[training_id]
        training.step, training.message = training.total_steps, message
        if message:
            training.state = tr.TRAINING_STATE_FAILED
            return
        training.state = tr.TRAINING_STATE_SUCCEEDED
        training.artifact_url = f"file:///checkpoints/{training_id}"
        training.checkpoint_id = hashlib.sha256(training_id.encode()).hexdigest()[:32]

    async def submit(self, request: tr.SubmitTrainingRequest) -> tr.SubmitTrainingResponse:
        """Submit a training; one that was cancelled or failed continues."""
        async with self.control.call("submit", request):
            nameless = tr.TrainingSpec()
            nameless.CopyFrom(request.spec)
            nameless.name, nameless.checkpoint_steps = "", 0
            key = hashlib.sha256(nameless.SerializeToString(deterministic=True)).hexdigest()[:32]
            training = self.trainings.get(key)
            if training is None:
                training = tr.Training(id=key, spec=request.spec, total_steps=10)
                training.created_at.FromSeconds(1)
                self.trainings[key] = training
            if training.state != tr.TRAINING_STATE_SUCCEEDED:
                training.state, training.message = tr.TRAINING_STATE_RUNNING, ""
                if self.at_once:
                    self.finish(key)
            return tr.SubmitTrainingResponse(training=training)

    async def get(self, request: tr.GetTrainingRequest) -> tr.GetTrainingResponse:
        """Return the state of a training."""
        async with self.control.call("get", request):
            return tr.GetTrainingResponse(training=self._training(request.id))

    async def cancel(self, request: tr.CancelTrainingRequest) -> tr.CancelTrainingResponse:
        """Stop a training unless it has ended."""
        async with self.control.call("cancel", request):
            training = self._training(request.id)
            if training.state not in ENDED:
                training.state = tr.TRAINING_STATE_CANCELLED
            return tr.CancelTrainingResponse(training=training)

    def _training(self, training_id: str) -> tr.Training:
        if training_id not in self.trainings:
            raise NotFound(f"there is no training {training_id}")
        return self.trainings[training_id]
