"""From options to a run's configuration, and to the model that writes it."""

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
from codealign.cli.run_file import merged, to_run
from codealign.cli.stack import Options, model_source

_LOAD_SECONDS = 3600.0


DIFFICULTY = "difficulty"
"""The property that --difficulty sets, in every stage that draws it."""


@dataclass(frozen=True)
class RunChoices:
    """What a person may choose about a run's data. 0 and "" stand for the coordinator's defaults."""

    name: str = ""
    limit: int = 0
    """Seeds."""
    attempts: int = 0
    """Of the pipeline's last writing stage: draws for each parent at most."""
    round_size: int = 0
    """Of the same stage: draws at once."""
    prefix_groups: int = 0
    """Of every writing stage whose examples are pooled."""
    max_tokens: int = 0
    """Of the pipeline's last writing stage: new tokens."""
    temperature: float | None = None
    """Of every writing stage."""
    seed: int = 0
    preset: str = presets.DEFAULT
    """Fills in what is not chosen; see `presets`."""
    difficulties: tuple[str, ...] = ()
    """Of tasks; empty: the stages' own."""
    runs: int = 0
    """Of each program."""
    pipeline: str = ""
    strategy: str = ""
    """Of selection. Empty: the coordinator's default."""
    file: Mapping[str, Any] = field(default_factory=dict)
    """What a run file sets; see `run_file`. Wins over the preset, not over options."""

    def check(self) -> None:
        """Find what cannot work before anything is started.

        Raises:
            Failure: Names the option.
        """
        presets.load(self.preset)

    @property
    def pipeline_name(self) -> str:
        """The pipeline that is meant. Empty: the coordinator's default."""
        return self.pipeline or self.file.get("pipeline", "") or presets.load(self.preset).run.get("pipeline", "")


def run_config(choices: RunChoices, collection: str, model: str, pipeline: api.Pipeline) -> pb.Run:
    """The configuration; what is not chosen is left to the coordinator.

    Args:
        choices: What was chosen.
        collection: Of seeds. Empty: the run file's.
        model: As the inference service names it. Empty: its only one, or the run file's.
        pipeline: What the coordinator says of `choices.pipeline_name`.

    Raises:
        Failure: Names the option that is wrong.
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
    chosen["model"] = {"model": model} if model else {}
    chosen["execution"] = {"runs": choices.runs} if choices.runs else {}
    chosen["selection"] = {"strategy": choices.strategy} if choices.strategy else {}
    return to_run({**merged(given, chosen), "stages": chosen["stages"]})


def _set_last(settings: dict[str, Any], choices: RunChoices) -> None:
    """Set what options set of the last writing stage."""
    for name in ("attempts", "round_size", "max_tokens"):
        if chosen := getattr(choices, name):
            settings[name] = chosen
    if choices.attempts and not choices.round_size and "round_size" in settings:
        settings["round_size"] = min(settings["round_size"], choices.attempts)


def fitted(preset: Mapping[str, Any], pipeline: api.Pipeline) -> dict[str, Any]:
    """A preset's configuration without the stages, properties and few-shot set that a pipeline does not have."""
    found = dict(preset)
    if found.get("few_shot_set") not in pipeline.few_shot_sets:
        found.pop("few_shot_set", None)
    there = {stage.name: {draw.name for draw in stage.properties} for stage in pipeline.stages}
    stages = {}
    for name, settings in found.pop("stages", {}).items():
        if name in there:
            stages[name] = dict(settings)
            drawn = {key: values for key, values in settings.get("properties", {}).items() if key in there[name]}
            if "properties" in settings:
                stages[name]["properties"] = drawn
    return {**found, "stages": stages}


async def run_pipeline(connection: Connection, name: str) -> api.Pipeline:
    """What the coordinator says of a pipeline.

    Args:
        connection: To the coordinator.
        name: The pipeline's. Empty: the coordinator's default.

    Raises:
        Failure: It has none of this name; the message names those that there are.
    """
    request = api.GetPipelineRequest(name=name)
    response = await connection.call(connection.clients.coordinator.GetPipeline, request)
    return response.pipeline


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


async def choose_model(connection: Connection, options: Options) -> str:
    """The name of the model that the run uses, loaded if need be.

    Args:
        connection: To the inference service.
        options: Names the model and the engine; both may be empty.

    Raises:
        Failure: The service has another one and cannot load this one.
    """
    inference = connection.clients.inference
    listed = await connection.call(inference.ListModels, inf.ListModelsRequest())
    models = list(listed.models)
    if options.engine and models and all(model.engine != options.engine for model in models):
        raise Failure(
            f"--engine {options.engine}: the inference service at {connection.addresses.inference} runs "
            f"{models[0].engine}; stop it, or leave the option out"
        )
    if connection.started and len(models) == 1:
        return models[0].name
    if not options.model:
        if len(models) != 1:
            names = ", ".join(model.name for model in models) or "none"
            raise Failure(f"choose a model with --model; loaded at {connection.addresses.inference}: {names}")
        return models[0].name
    source = model_source(options.model)
    for model in models:
        if options.model in (model.name, model.source) or source == model.source:
            return model.name
    return await _load(connection, options.model, source, models)


async def _load(connection: Connection, name: str, source: str, models: list[inf.Model]) -> str:
    request = inf.LoadModelRequest(source=source)
    try:
        response = await connection.clients.call(connection.clients.inference.LoadModel, request, timeout=_LOAD_SECONDS)
    except grpc.aio.AioRpcError as error:
        served = ", ".join(model.name for model in models) or "no model"
        raise Failure(
            f"--model {name}: the inference service at {connection.addresses.inference} serves {served} and cannot "
            f"load it ({error.details() or error.code().name}): stop the services, or name with --model what they serve"
        ) from error
    return response.model.name
