"""Models of loops, series and experiments: loading them into inference, and evaluating them for an assignment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import NotFound
from codealign.common.logs import get_logger
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.prompts import BASE
from codealign.coordinator.evaluation.request import checked, job_record
from codealign.coordinator.ground import requests
from codealign.coordinator.ground.assignment import Assignment
from codealign.coordinator.ground.faults import RunFailed
from codealign.coordinator.ground.ports import Inference

log = get_logger(__name__)
POLL_SECONDS = 1.0
"""Seconds between polls of a run, an evaluation, a training or a loop."""


@dataclass(frozen=True)
class Located:
    """A model and where inference loads it from."""

    choice: pb.ModelChoice
    """Name and revision."""
    source: str


class Models:
    """Loads and evaluates models.

    Args:
        inference: Client of the inference service.
        evaluations: Used to start and watch evaluations.
        poll_seconds: Seconds between polls.
    """

    def __init__(self, inference: Inference, evaluations: Evaluations, poll_seconds: float = POLL_SECONDS) -> None:
        self._inference, self._evaluations, self._poll_seconds = inference, evaluations, poll_seconds

    async def evaluate(
        self,
        assignment: Assignment,
        settings: pb.EvaluationSettings,
        source: str,
        *,
        one_model: bool,
        resume: str = "the loop",
    ) -> None:
        """Evaluate a model, unless that was done before.

        Args:
            assignment: Assignment that the evaluation is part of.
            settings: Settings with the model's name and revision.
            source: Location to load the model from if necessary.
            one_model: Unload every other model first.
            resume: What a user resumes after a failure, for the message.

        Raises:
            RunFailed: The evaluation ended without a result.
        """
        job, asked = job_record(checked(settings)), False
        while True:
            standing = await self._evaluations.standing(job.id)
            settled = standing.settled(repeatable=True)
            succeeded = settled and standing.state == pb.RUN_STATE_SUCCEEDED
            # Results of earlier runners do not count: all models must be judged by the same runners.
            if succeeded and (asked or await self._evaluations.is_whole(settings)):
                return
            if settled:
                was_loaded = await self.load(assignment, [Located(settings.model, source)], one_model=one_model)
                if asked and was_loaded:
                    raise RunFailed(_ended(job, standing, resume))
                assignment.gate()
                await self._evaluations.start(job, f"for {resume.removeprefix('the ')} {assignment.subject.id[:12]}")
                asked = True
            assignment.say(f"evaluating the {_model_of(job)} model")
            await self.pause(assignment)

    async def load(self, assignment: Assignment, wanted: Sequence[Located], *, one_model: bool) -> bool:
        """Load models into inference if necessary, and return whether all were already loaded."""
        listed = (await self._inference.list_models(inf.ListModelsRequest())).models
        there = {model.revision for model in listed}
        missing = [each for each in wanted if each.choice.revision not in there]
        if not missing:
            return True
        assignment.gate()
        needed = {each.choice.revision for each in wanted}
        for model in listed:
            if one_model and model.revision not in needed:
                try:
                    await self._inference.unload_model(inf.UnloadModelRequest(name=model.name))
                except NotFound:
                    log.info("model_gone", model=model.name)
        for each in missing:
            assignment.say(f"loading model {each.choice.model}")
            request = inf.LoadModelRequest(
                name=each.choice.model, source=each.source, expected_revision=each.choice.revision
            )
            await self._inference.load_model(request)
        return False

    async def pause(self, assignment: Assignment) -> None:
        """Wait until the next poll.

        Raises:
            RunStopped: No new work may start.
        """
        assignment.gate()
        await asyncio.sleep(self._poll_seconds)
        assignment.gate()


def _model_of(job: pb.Record) -> str:
    return "base" if job.evaluation_job.settings.prompt_style == BASE else "tuned"


def _ended(job: pb.Record, standing: requests.Standing, resume: str) -> str:
    """Describe why an evaluation ended without a result."""
    model, short = _model_of(job), job.id[:12]
    if standing.state == pb.RUN_STATE_FAILED:
        return f"the evaluation of the {model} model ({short}) failed: {standing.message}"
    state = pb.RunState.Name(standing.state).removeprefix("RUN_STATE_").lower()
    return f"the evaluation of the {model} model ({short}) was {state}; resume {resume} to continue it"
