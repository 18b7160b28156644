"""Loop requests: validation, the Loop record, and the requests that its steps make to other services."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as tr
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.common.training_settings import violations
from codealign.coordinator.evaluation import request as evaluation
from codealign.coordinator.evaluation.prompts import BASE, TUNED

_NAME_DIGITS = 8
_FROM_THE_RUN = "must not be set: it is taken from the run"


def checked(loop: pb.Loop, path: str = "loop") -> pb.Loop:
    """Validate a loop and fill in the defaults of its evaluations.

    The training's settings are checked as the training service checks them, before data are made for it.

    Args:
        loop: Loop from the request.
        path: Path of the loop in the request, for messages.

    Raises:
        InvalidArgument: Names every invalid field.
    """
    wrong: list[tuple[str, str]] = []
    for name in ("model", "model_revision", "dataset"):
        if getattr(loop.training, name):
            wrong.append((f"{path}.training.{name}", _FROM_THE_RUN))
    wrong += violations(loop.training, f"{path}.training")
    if loop.HasField("model"):
        wrong.append((f"{path}.model", _FROM_THE_RUN))
    if loop.tuned_only:
        wrong.append((f"{path}.tuned_only", "must not be set: only series set it"))
    found = pb.Loop(training=loop.training, one_model=loop.one_model)
    for number, settings in enumerate(loop.evaluations):
        at = f"{path}.evaluations[{number}]"
        if settings.model.model or settings.model.revision:
            wrong.append((f"{at}.model", _FROM_THE_RUN))
        if settings.prompt_style:
            styles = f'must not be set: it is "{BASE}" before the training and "{TUNED}" after it'
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
            wrong.append((at, "duplicate evaluation"))
        found.evaluations.append(filled)
    if wrong:
        raise InvalidArgument(violations=wrong)
    return found


def loop_record(run: pb.Record, loop: pb.Loop, source: str) -> pb.Record:
    """Return the Loop record. Identical loops of the same run are the same record.

    Args:
        run: Run record.
        loop: Validated loop, from `checked`.
        source: Location that inference loaded the run's model from.
    """
    body = pb.Loop()
    body.CopyFrom(loop)
    body.training.model, body.training.model_revision = source, tuned_from(loop, run.run).revision
    record = pb.Record(kind=pb.KIND_LOOP, parents=[run.id], loop=body)
    record.key = records.content_hash(record)
    return records.complete(record)


def tuned_from(loop: pb.Loop, run: pb.Run) -> pb.ModelChoice:
    """Return the model that a loop evaluates and tunes: its own, or the run's."""
    return loop.model if loop.HasField("model") else run.model


def training_of(loop: pb.Loop, version: str) -> tr.TrainingSpec:
    """Return the specification of the training on a dataset version."""
    spec = tr.TrainingSpec()
    spec.CopyFrom(loop.training)
    spec.dataset = version
    return spec


def base_evaluations(loop: pb.Loop, run: pb.Run) -> list[pb.EvaluationSettings]:
    """Return the settings for evaluating the model before the training."""
    return [] if loop.tuned_only else evaluations_of(loop.evaluations, tuned_from(loop, run), BASE)


def tuned_evaluations(loop: pb.Loop, run: pb.Run, training: str, revision: str) -> list[pb.EvaluationSettings]:
    """Return the settings for evaluating the tuned model.

    Args:
        loop: The loop.
        run: Run of the loop.
        training: Id of the training.
        revision: Revision of the tuned model.
    """
    choice = pb.ModelChoice(model=tuned_name(loop, run, training), revision=revision)
    return evaluations_of(loop.evaluations, choice, TUNED)


def tuned_name(loop: pb.Loop, run: pb.Run, training: str) -> str:
    """Return the name of the tuned model: that of the model it is tuned from plus the training id's first digits."""
    return f"{tuned_from(loop, run).model}-{training[:_NAME_DIGITS]}"


def evaluations_of(
    given: Sequence[pb.EvaluationSettings], model: pb.ModelChoice, style: str
) -> list[pb.EvaluationSettings]:
    """Return the settings for evaluating a model, from those that leave the model and the prompt style open."""
    found = []
    for each in given:
        settings = pb.EvaluationSettings()
        settings.CopyFrom(each)
        settings.model.CopyFrom(model)
        settings.prompt_style = style
        found.append(settings)
    return found
