"""Build a run's configuration from command-line options, and choose its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import json_format

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli import presets
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.loop import LoopChoices, evaluation_settings
from codealign.cli.run_file import RunFile, merged, to_run
from codealign.cli.stack import Options, model_source
from codealign.common.errors import violations

_LOAD_SECONDS = 3600.0


DIFFICULTY = "difficulty"
"""The property that --difficulty sets, in every stage that draws it."""


@dataclass(frozen=True)
class RunChoices:
    """Options of a run's data pipeline. 0 and "" stand for the coordinator's defaults."""

    name: str = ""
    limit: int = 0
    """Seeds to use."""
    attempts: int = 0
    """Draws for each parent at most, in the pipeline's last writing stage."""
    round_size: int = 0
    """Draws at once, in the same stage."""
    prefix_groups: int = 0
    """Few-shot orderings of every writing stage that pools its examples."""
    max_tokens: int = 0
    """New tokens in the pipeline's last writing stage."""
    temperature: float | None = None
    """Temperature of every writing stage."""
    seed: int = 0
    preset: str = presets.DEFAULT
    """Preset that fills in what is not chosen; see `presets`."""
    difficulties: tuple[str, ...] = ()
    """Difficulties of tasks to draw from. Empty: the stages' defaults."""
    runs: int = 0
    """Executions of each program."""
    pipeline: str = ""
    strategy: str = ""
    """Selection strategy. Empty: the coordinator's default."""
    target: Mapping[str, float] = field(default_factory=dict)
    """What ends the run: fields of Target."""
    file: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a run file; see `run_file`. They win over the preset, not over options."""

    def check(self) -> None:
        """Check the options before anything is started.

        Raises:
            Failure: An option is invalid.
        """
        presets.load(self.preset)

    @property
    def pipeline_name(self) -> str:
        """Name of the run's pipeline. Empty: the coordinator's default."""
        return self.pipeline or self.file.get("pipeline", "") or presets.load(self.preset).run.get("pipeline", "")


def run_config(choices: RunChoices, collection: str, model: str, pipeline: api.Pipeline) -> pb.Run:
    """Return the run's configuration. What is not chosen is left to the coordinator.

    Args:
        choices: The options.
        collection: Seed collection. Empty: the run file's.
        model: The model's name in the inference service. Empty: its only model, or the run file's.
        pipeline: The coordinator's description of `choices.pipeline_name`.

    Raises:
        Failure: An option is invalid.
    """
    choices.check()
    writing = [stage for stage in pipeline.stages if stage.role == api.STAGE_ROLE_WRITING]
    given = merged(fitted(presets.load(choices.preset).run, pipeline), choices.file)
    stages = {name: dict(settings) for name, settings in given.get("stages", {}).items()}
    for stage in writing:
        settings = stages.setdefault(stage.name, {})
        if choices.prefix_groups and not settings.get("unpooled"):
            settings["prefix_groups"] = choices.prefix_groups
        if choices.temperature is not None:
            settings["temperature"] = choices.temperature
        if choices.difficulties and any(draw.name == DIFFICULTY for draw in stage.properties):
            drawn = {DIFFICULTY: list(choices.difficulties)}
            settings["properties"] = merged(settings.get("properties", {}), drawn)
    if choices.difficulties and not any(draw.name == DIFFICULTY for stage in writing for draw in stage.properties):
        raise Failure(f"--difficulty: no stage of pipeline {pipeline.name} draws a difficulty")
    if writing:
        _set_last(stages[writing[-1].name], choices)
    chosen: dict[str, Any] = {"stages": {name: settings for name, settings in stages.items() if settings}}
    for key, value in (("name", choices.name), ("seed", choices.seed), ("pipeline", choices.pipeline)):
        if value:
            chosen[key] = value
    seeds = {"collection": collection, "limit": choices.limit}
    chosen["seeds"] = {key: value for key, value in seeds.items() if value}
    if choices.target:
        chosen["target"] = dict(choices.target)
    chosen["model"] = {"model": model} if model else {}
    chosen["execution"] = {"runs": choices.runs} if choices.runs else {}
    chosen["selection"] = {"strategy": choices.strategy} if choices.strategy else {}
    return to_run({**merged(given, chosen), "stages": chosen["stages"]})


def _set_last(settings: dict[str, Any], choices: RunChoices) -> None:
    """Apply the options that set the last writing stage."""
    for name in ("attempts", "round_size", "max_tokens"):
        if chosen := getattr(choices, name):
            settings[name] = chosen
    if choices.attempts and not choices.round_size and "round_size" in settings:
        settings["round_size"] = min(settings["round_size"], choices.attempts)


def fitted(preset: Mapping[str, Any], pipeline: api.Pipeline) -> dict[str, Any]:
    """Return a preset's configuration without stages, properties and few-shot set that the pipeline lacks."""
    found = dict(preset)
    if found.get("few_shot_set") not in pipeline.few_shot_sets:
        found.pop("few_shot_set", None)
    writing = [stage for stage in pipeline.stages if stage.role == api.STAGE_ROLE_WRITING]
    there = {stage.name: {draw.name for draw in stage.properties} for stage in writing}
    stages = {}
    for name, settings in found.pop("stages", {}).items():
        if name in there:
            stages[name] = dict(settings)
            drawn = {key: values for key, values in settings.get("properties", {}).items() if key in there[name]}
            if "properties" in settings:
                stages[name]["properties"] = drawn
    return {**found, "stages": stages}


def writes(pipeline: api.Pipeline) -> bool:
    """Return whether a model writes in a pipeline."""
    return any(stage.role == api.STAGE_ROLE_WRITING for stage in pipeline.stages)


async def run_pipeline(connection: Connection, name: str) -> api.Pipeline:
    """Return the coordinator's description of a pipeline.

    Args:
        connection: To the coordinator.
        name: The pipeline. Empty: the coordinator's default.

    Raises:
        Failure: There is no such pipeline. The message lists the existing ones.
    """
    request = api.GetPipelineRequest(name=name)
    response = await connection.call(connection.clients.coordinator.GetPipeline, request)
    return response.pipeline


async def chosen_pipeline(connection: Connection, choices: RunChoices) -> api.Pipeline:
    """Return the coordinator's description of the chosen pipeline.

    Raises:
        Failure: The coordinator does not have it; the message names where it was chosen, and the valid names.
    """
    try:
        return await run_pipeline(connection, choices.pipeline_name)
    except Failure as failure:
        wrong = violations(failure.__cause__) if isinstance(failure.__cause__, grpc.aio.AioRpcError) else []
        if not wrong:
            raise
        given = "--config: pipeline" if "pipeline" in choices.file else f"--preset {choices.preset}: pipeline"
        raise Failure(f"{'--pipeline' if choices.pipeline else given}: {wrong[0][1]}") from failure


def loop_choices(
    preset: str,
    until: str,
    chosen: training.TrainingSpec,
    benchmarks: Sequence[str],
    limit: int | None,
    *,
    files: bool = False,
) -> LoopChoices:
    """Return what follows the data.

    Args:
        preset: The preset that fills in what the options leave out.
        until: Where to stop.
        chosen: The training settings that the options set.
        benchmarks: Benchmarks to evaluate on. Empty: the preset's.
        limit: Problems of each benchmark. 0: all; None: the preset's.
        files: Whether the user gave benchmark files.

    Raises:
        Failure: An option is invalid.
    """
    defaults = presets.load(preset)
    spec = json_format.ParseDict(dict(defaults.training), training.TrainingSpec())
    spec.MergeFrom(chosen)
    evaluations = []
    for values in defaults.evaluations or ({},):
        over: dict[str, Any] = {"benchmarks": list(benchmarks)} if benchmarks else {}
        over |= {"limit": limit} if limit is not None else {}
        evaluations.append(evaluation_settings({**values, **over}))
    choices = LoopChoices(until, spec, tuple(evaluations), benchmarks_named=bool(benchmarks) or files)
    choices.check()
    return choices


def series_of(number: int | None, file: RunFile) -> pb.RoundSeries | None:
    """Return the series of rounds that the options and the run file ask for, or None.

    Args:
        number: Number of rounds, which wins over the file's, or None.
        file: The run file.
    """
    if number is None and file.rounds is None:
        return None
    series = json_format.ParseDict(dict(file.rounds or {}), pb.RoundSeries())
    if number is not None:
        series.number = number
    return series


async def choose_model(connection: Connection, options: Options, *, given: bool = True) -> str:
    """Return the name of the model to use, loading it if necessary.

    Args:
        connection: To the inference service.
        options: Model and engine; both may be empty.
        given: Whether the user named the model, rather than the preset.

    Raises:
        Failure: The service runs another model or engine and cannot load this model.
    """
    inference = connection.clients.inference
    listed = await connection.call(inference.ListModels, inf.ListModelsRequest())
    models = list(listed.models)
    if options.engine and models and all(model.engine != options.engine for model in models):
        raise Failure(
            f"--engine {options.engine}: the inference service at {connection.addresses.inference} runs "
            f"{models[0].engine}; stop the service, or omit the option"
        )
    if connection.started and len(models) == 1:
        return models[0].name
    if not options.model:
        if len(models) != 1:
            names = ", ".join(model.name for model in models) or "none"
            raise Failure(f"choose a model with --model; {connection.addresses.inference} has loaded: {names}")
        return models[0].name
    source = model_source(options.model)
    # The user's name for one of the preset's models, whatever its source is where the services run.
    alias = options.settings.get("model_name", "") if given else ""
    for model in models:
        if model.name in (options.model, alias) or model.source in (options.model, source):
            return model.name
    return await _load(connection, options.model, source, models, given=given)


async def _load(connection: Connection, name: str, source: str, models: list[inf.Model], *, given: bool) -> str:
    request = inf.LoadModelRequest(source=source)
    try:
        response = await connection.clients.call(connection.clients.inference.LoadModel, request, timeout=_LOAD_SECONDS)
    except grpc.aio.AioRpcError as error:
        served = ", ".join(model.name for model in models) or "no model"
        which = f"--model {name}" if given else f"the preset's model, {name}"
        advice = (
            f"Pass --model {models[0].name} to use the served model, or stop the services"
            if models
            else "Stop the services"
        )
        raise Failure(
            f"{which}: the inference service at {connection.addresses.inference} serves {served} and cannot load this "
            f"one ({error.details() or error.code().name}). {advice}"
        ) from error
    return response.model.name
