"""Validation of a run's configuration. All violations are reported at once, each with its path in the request."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.common.text import unknown
from codealign.coordinator import pipelines
from codealign.coordinator.pipelines.defaults import stage_settings
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Writing
from codealign.coordinator.rules import near
from codealign.coordinator.runs.strategies import STRATEGIES, Agreement, FailuresOnly

MAX_ATTEMPTS = 256
MAX_EXECUTIONS = 10
MAX_WINDOW = 65_536
MAX_NAME = 200
"""Maximum characters of a run's or a collection's name, as in the store."""

_SET_BY_SERVICE = "is set by the service; leave it empty"

_Violations = Iterator[tuple[str, str]]


def check(given: pb.Run) -> None:
    """Check the configuration in a request before defaults are filled in.

    Raises:
        InvalidArgument: Names every invalid field and, for an unknown name, the nearest valid one.
    """
    if wrong := [(f"config.{path}", text) for path, text in violations(given)]:
        raise InvalidArgument(violations=wrong)


def set_by_service(given: pb.Run) -> _Violations:
    """Yield the fields of a caller's configuration that only the service may set, with the reason."""
    if given.rejudges:
        yield "rejudges", f"{_SET_BY_SERVICE} (RejudgeRun sets it)"
    for number, settings in enumerate(given.stages):
        if settings.version:
            yield f"stages[{number}].version", _SET_BY_SERVICE
    yield from set_by_service_in_execution(given.execution)
    for name in ("forbidden_texts_sha256", "rules_version"):
        if getattr(given.selection, name):
            yield f"selection.{name}", _SET_BY_SERVICE


def set_by_service_in_execution(execution: pb.ExecutionSettings) -> _Violations:
    """Yield the execution settings of a caller that only the service may set, with the reason."""
    for name in ("image_digest", "python_version"):
        if getattr(execution, name):
            yield f"execution.{name}", _SET_BY_SERVICE


def violations(given: pb.Run) -> _Violations:
    """Yield everything that is invalid in a configuration by itself, each field by its path in the configuration."""
    if len(given.name) > MAX_NAME or not given.name.isprintable():
        yield "name", f"must be at most {MAX_NAME} printable characters"
    yield from _seeds(given.seeds)
    yield from _target(given)
    yield from _selection(given.selection)
    yield from _execution(given.execution)
    name = given.pipeline or pipelines.DEFAULT
    if name not in pipelines.names():
        yield "pipeline", unknown("pipeline", name, pipelines.names())
        return  # the stages cannot be checked without the pipeline
    pipeline = pipelines.get(name)
    if pipeline.execution is None:
        if given.execution.ListFields():
            yield "execution", f"pipeline {name!r} has no execution stage: leave it out"
        if given.selection.strategy in (FailuresOnly.name, Agreement.name):
            strategy = given.selection.strategy
            yield "selection.strategy", f"{strategy!r} needs an execution stage; pipeline {name!r} has none"
    if not pipeline.writing and has_target(given):
        yield "target", f"nothing is drawn in pipeline {name!r}: leave it out"
    if given.selection.strategy == Agreement.name:
        if has_target(given):
            yield "target", f"strategy {Agreement.name!r} decides itself how much to draw: leave the target out"
        if not pipeline.writing:
            yield "selection.strategy", f"{Agreement.name!r} compares attempts; in pipeline {name!r} there is one each"
    yield from _few_shot_set(pipeline, given.few_shot_set)
    yield from _stages(pipeline, given)


def _seeds(seeds: pb.SeedSelection) -> _Violations:
    if not seeds.collection:
        yield "seeds.collection", "name a collection of seeds (see `codealign seeds ls`)"
    elif len(seeds.collection) > MAX_NAME or not seeds.collection.isprintable():
        yield "seeds.collection", f"must be 1 to {MAX_NAME} printable characters"
    if seeds.limit < 0:
        yield "seeds.limit", "must not be negative; 0 takes all"


def _target(given: pb.Run) -> _Violations:
    target = given.target
    for name in ("rows", "tokens", "device_hours"):
        if target.HasField(name) and not 0 < getattr(target, name) < math.inf:  # false for NaN
            yield f"target.{name}", f"is {getattr(target, name):g}; must be above 0. Leave it out for no such target"
    if target.devices < 0:
        yield "target.devices", "must be positive"
    elif target.devices and not target.HasField("device_hours"):
        yield "target.devices", "has no effect without `device_hours`: set that, or leave it out"
    if not 0 <= target.window <= MAX_WINDOW:
        yield "target.window", f"must be from 1 to {MAX_WINDOW:,}"
    elif target.window and not has_target(given):
        yield "target.window", "has no effect without a target: set `rows`, `tokens` or `device_hours`"


def has_target(run: pb.Run) -> bool:
    """Return whether something besides its seeds ends a run."""
    return any(run.target.HasField(name) for name in ("rows", "tokens", "device_hours"))


def _selection(selection: pb.SelectionSettings) -> _Violations:
    if selection.instruction_words < 0:
        yield "selection.instruction_words", "must be positive"
    if not 0 <= selection.near_duplicate_threshold <= 1:
        yield "selection.near_duplicate_threshold", "must be above 0 and at most 1"
    if not 0 <= selection.tests_in_instruction <= 1:
        yield "selection.tests_in_instruction", "must be from 0 to 1"
    for field, what, known in (
        ("near_duplicates", "strategy", near.STRATEGIES),
        ("strategy", "strategy", STRATEGIES),
    ):
        if (value := getattr(selection, field)) and value not in known:
            yield f"selection.{field}", unknown(what, value, known)


def _execution(execution: pb.ExecutionSettings) -> _Violations:
    if not 0 <= execution.runs <= MAX_EXECUTIONS:
        yield "execution.runs", f"must be from 1 to {MAX_EXECUTIONS}"


def _few_shot_set(pipeline: Pipeline, name: str) -> _Violations:
    known = pipeline.few_shots.names()
    if name and not known:
        yield "few_shot_set", f"no model writes in pipeline {pipeline.name!r}: leave it out"
    elif name and name not in known:
        yield "few_shot_set", unknown("few-shot set", name, known)


def _stages(pipeline: Pipeline, given: pb.Run) -> _Violations:
    writing = {stage.name: stage for stage in pipeline.writing}
    places: dict[str, str] = {}
    for number, settings in enumerate(given.stages):
        place, name = f"stages[{number}]", settings.stage
        if name in places:
            yield f"{place}.stage", f"duplicate stage {name!r}, already set in {places[name]}: merge the two"
        elif name not in writing:
            text = unknown("stage", name, writing)
            others = [stage.name for stage in pipeline.stages if stage.name not in writing]
            yield (
                f"{place}.stage",
                f"{name!r} is not generated by a model and has no settings" if name in others else text,
            )
        else:
            places[name] = place
            yield from _stage(place, writing[name], settings)
    if not writing:
        return
    known_set = given.few_shot_set in ("", *pipeline.few_shots.names())
    shots = len(pipeline.few_shots.load(given.few_shot_set or pipeline.few_shots.default)) if known_set else None
    by_name = {settings.stage: settings for settings in reversed(given.stages)}
    for stage in pipeline.writing:
        wanted = stage_settings(stage, by_name.get(stage.name)).few_shots
        if shots is not None and not 1 <= wanted <= shots:
            place = f"{places[stage.name]}.few_shots" if stage.name in places else "few_shot_set"
            yield place, f"stage {stage.name!r} is set to {wanted} few-shot examples; must be from 1 to {shots}"


def _stage(place: str, stage: Writing, given: pb.StageSettings) -> _Violations:
    full = stage_settings(stage, given)
    if not 0 <= full.temperature <= 2:
        yield f"{place}.temperature", "must be from 0 to 2"
    if not 0 < full.top_p <= 1:
        yield f"{place}.top_p", "must be above 0 and at most 1"
    if full.max_tokens <= 0:
        yield f"{place}.max_tokens", "must be positive"
    if given.unpooled and given.prefix_groups:
        yield f"{place}.prefix_groups", "must be left out with `unpooled`: every item draws its own examples"
    elif full.prefix_groups < 0:
        yield f"{place}.prefix_groups", "must be positive"
    if not 1 <= full.attempts <= MAX_ATTEMPTS:
        yield f"{place}.attempts", f"must be from 1 to {MAX_ATTEMPTS}"
    if given.round_size < 0:
        yield f"{place}.round_size", "must be positive"
    if given.model.revision and not given.model.model:
        yield f"{place}.model.model", "required with `revision`: name the model"
    yield from _properties(place, stage, given.properties)


def _properties(place: str, stage: Writing, given: Collection[pb.PropertyDraw]) -> _Violations:
    seen: set[str] = set()
    for number, draw in enumerate(given):
        where = f"{place}.properties[{number}]"
        if draw.name not in stage.properties:
            yield f"{where}.name", unknown("property", draw.name, stage.properties)
            continue
        if draw.name in seen:
            yield f"{where}.name", f"duplicate property {draw.name!r}: list all its values in one entry"
        seen.add(draw.name)
        known = stage.properties[draw.name]
        for position, value in enumerate(draw.values):
            if value not in known:
                yield f"{where}.values[{position}]", unknown(draw.name, value, known)
