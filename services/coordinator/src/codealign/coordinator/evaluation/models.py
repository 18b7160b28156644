"""Selection of the loaded model that an evaluation is about."""

from __future__ import annotations

from collections.abc import Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound
from codealign.coordinator.evaluation import prompts


def chosen(choice: pb.ModelChoice, loaded: Sequence[inf.Model], style: str, path: str = "settings") -> inf.Model:
    """Select the model: by revision if given, else by name, else the only one loaded.

    Args:
        choice: Name and revision, either of which may be empty.
        loaded: Every model that inference has loaded.
        style: Prompt style, which the model must support.
        path: Path of the settings in the request, for messages.

    Raises:
        NotFound: No such model is loaded.
        FailedPrecondition: No model is loaded.
        InvalidArgument: Names every invalid field: the revision differs; several models are loaded and none is named;
            the model has no chat template.
    """
    wrong: list[tuple[str, str]] = []
    try:
        meant = [_found(choice, loaded, path)]
    except InvalidArgument as error:
        wrong += error.violations
        meant = [model for model in loaded if choice.model in ("", model.name)]
    if style == prompts.TUNED and not any(model.chat_template for model in meant):
        told = f'model {meant[0].name} has no chat template: it supports only the style "base"'
        wrong.append((f"{path}.prompt_style", told))
    if wrong:
        raise InvalidArgument(violations=wrong)
    return meant[0]


def _found(choice: pb.ModelChoice, loaded: Sequence[inf.Model], path: str) -> inf.Model:
    names = ", ".join(sorted(model.name for model in loaded))
    if not loaded:
        raise FailedPrecondition("inference: no model is loaded")
    if not choice.model and not choice.revision:
        if len(loaded) > 1:
            raise InvalidArgument(f"{path}.model.model", f"several models are loaded; choose one of: {names}")
        return loaded[0]
    same = [model for model in loaded if choice.model in ("", model.name)]
    right = [model for model in same if choice.revision in ("", model.revision)]
    right += [model for model in loaded if choice.revision and model.revision == choice.revision]
    if right:
        return right[0]
    if same:
        served = ", ".join(f"{model.name} at revision {model.revision[:12]}" for model in same)
        raise InvalidArgument(f"{path}.model.revision", f"inference serves {served}, not {choice.revision[:12]}")
    raise NotFound(f"inference: model {choice.model} is not loaded; loaded: {names}")
