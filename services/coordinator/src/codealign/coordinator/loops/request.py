"""What a loop was asked for: checked once, where wire becomes domain; and what its steps ask of other services."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.coordinator.evaluation import request as evaluation
from codealign.coordinator.evaluation.prompts import BASE, TUNED

_NAME_DIGITS = 8
_FROM_THE_RUN = "follows from the run: leave it out"


def checked(loop: pb.Loop, path: str = "loop") -> pb.Loop:
    """The loop with the defaults of its evaluations filled in.

    Args:
        loop: As it was given.
        path: Of the loop in the request, for messages.

    Raises:
        InvalidArgument: Names every field that is wrong.
    """
    wrong: list[tuple[str, str]] = []
    for name in ("model", "model_revision", "dataset"):
        if getattr(loop.training, name):
            wrong.append((f"{path}.training.{name}", _FROM_THE_RUN))
    found = pb.Loop(training=loop.training, one_model=loop.one_model)
    for number, settings in enumerate(loop.evaluations):
        at = f"{path}.evaluations[{number}]"
        if settings.model.model or settings.model.revision:
            wrong.append((f"{at}.model", _FROM_THE_RUN))
        if settings.prompt_style:
            styles = f'is "{BASE}" before the training and "{TUNED}" after it: leave it out'
            wrong.append((f"{at}.prompt_style", styles))
        plain = pb.EvaluationSettings()
        plain.CopyFrom(settings)
        plain.prompt_style = ""
        try:
            filled = evaluation.settings_of(evaluation.checked(plain, at, style=BASE))
        except InvalidArgument as error:
            wrong += error.violations
            continue
        filled.ClearField("model")
        filled.prompt_style = ""
        if filled in found.evaluations:
            wrong.append((at, "is there twice"))
        found.evaluations.append(filled)
    if wrong:
        raise InvalidArgument(violations=wrong)
    return found


def loop_record(run: pb.Record, loop: pb.Loop, source: str) -> pb.Record:
    """The Loop record: the same loop of the same run is the same record.

    Args:
        run: Its run.
        loop: As `checked` gives it.
        source: Where inference has the run's model from.
    """
    body = pb.Loop()
    body.CopyFrom(loop)
    body.training.model, body.training.model_revision = source, run.run.model.revision
    record = pb.Record(kind=pb.KIND_LOOP, parents=[run.id], loop=body)
    record.key = records.content_hash(record)
    return records.complete(record)


def training_of(loop: pb.Loop, version: str) -> tr.TrainingSpec:
    """The training on a version."""
    spec = tr.TrainingSpec()
    spec.CopyFrom(loop.training)
    spec.dataset = version
    return spec


def base_evaluations(loop: pb.Loop, run: pb.Run) -> list[pb.EvaluationSettings]:
    """Of the run's model, before the training."""
    return _evaluations(loop.evaluations, run.model, BASE)


def tuned_evaluations(loop: pb.Loop, run: pb.Run, training: str, revision: str) -> list[pb.EvaluationSettings]:
    """Of the tuned model.

    Args:
        loop: The loop.
        run: Its run.
        training: The training's id.
        revision: Of the model that it made.
    """
    choice = pb.ModelChoice(model=tuned_name(run, training), revision=revision)
    return _evaluations(loop.evaluations, choice, TUNED)


def tuned_name(run: pb.Run, training: str) -> str:
    """What the tuned model is called: by the run's model and the training."""
    return f"{run.model.model}-{training[:_NAME_DIGITS]}"


def _evaluations(
    given: Sequence[pb.EvaluationSettings], model: pb.ModelChoice, style: str
) -> list[pb.EvaluationSettings]:
    found = []
    for each in given:
        settings = pb.EvaluationSettings()
        settings.CopyFrom(each)
        settings.model.CopyFrom(model)
        settings.prompt_style = style
        found.append(settings)
    return found
