"""Default settings of writing stages."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines.stage import Writing

# Values for what a stage's `defaults` leave out. The temperature is from the paper (section 3); others: docs/decisions.
TEMPERATURE = 0.7
TOP_P = 1.0
PREFIX_GROUPS = 32
ROUND_SIZE = 2


def stage_settings(stage: Writing, given: pb.StageSettings | None = None) -> pb.StageSettings:
    """Return a copy of the given settings with the stage's defaults for everything left out.

    Properties are in the stage's order, whatever the given one, because draws depend on it. Values are not checked.
    """
    settings, own = pb.StageSettings(), stage.defaults
    if given is not None:
        settings.CopyFrom(given)
    settings.stage = stage.name
    settings.version = stage.reading_version
    if not settings.HasField("temperature"):
        settings.temperature = own.temperature if own.HasField("temperature") else TEMPERATURE
    settings.top_p = settings.top_p or own.top_p or TOP_P
    settings.max_tokens = settings.max_tokens or own.max_tokens
    settings.few_shots = settings.few_shots or own.few_shots
    settings.unpooled = settings.unpooled or (own.unpooled and not settings.prefix_groups)
    if not settings.unpooled:
        settings.prefix_groups = settings.prefix_groups or own.prefix_groups or PREFIX_GROUPS
    settings.attempts = settings.attempts or own.attempts or 1
    settings.round_size = min(settings.round_size or own.round_size or ROUND_SIZE, settings.attempts)
    _fill_properties(stage, settings)
    return settings


def _fill_properties(stage: Writing, settings: pb.StageSettings) -> None:
    there = [*settings.properties]
    drawn = {draw.name for draw in there if draw.values}
    defaults = {draw.name: list(draw.values) for draw in stage.defaults.properties}
    for name, values in stage.properties.items():
        if name not in drawn:
            there.append(pb.PropertyDraw(name=name, values=defaults.get(name) or values))
    order = list(stage.properties)
    # Unknown names are kept at the end, so that the check can name them.
    there = [draw for draw in there if draw.values or draw.name not in order]
    there.sort(key=lambda draw: order.index(draw.name) if draw.name in order else len(order))
    settings.ClearField("properties")
    settings.properties.extend(there)
