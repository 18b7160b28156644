"""From options to a run's configuration, and to the model that writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import grpc

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.cli import presets
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.loop import EvaluationChoices, LoopChoices
from codealign.cli.run_file import merged, to_run
from codealign.cli.stack import Options, model_source
from codealign.cli.tuning import TuningChoices
from codealign.common.errors import violations

Choices = TypeVar("Choices", TuningChoices, EvaluationChoices)
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


async def chosen_pipeline(connection: Connection, choices: RunChoices) -> api.Pipeline:
    """Return what the coordinator says of the pipeline that was chosen.

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
    tuning: TuningChoices,
    benchmarks: Sequence[str],
    limit: int | None,
    *,
    files: bool = False,
) -> LoopChoices:
    """What follows the data.

    Args:
        preset: Fills in what was not chosen.
        until: Where to stop.
        tuning: What was chosen about the training.
        benchmarks: To evaluate on. Empty: the default ones.
        limit: Problems of each. 0: all; None: not chosen.
        files: The benchmarks' files were given.

    Raises:
        Failure: Names the option that is wrong.
    """
    given = presets.load(preset)
    tuning = _over(tuning, given.training, f"--preset {preset}: training")
    evaluations = []
    for number, values in enumerate(given.evaluations or ({},)):
        one = _over(EvaluationChoices(), values, f"--preset {preset}: evaluations[{number}]")
        named = tuple(benchmarks or one.benchmarks)
        evaluations.append(replace(one, benchmarks=named, limit=one.limit if limit is None else limit))
    choices = LoopChoices(until, tuning, tuple(evaluations), benchmarks_named=bool(benchmarks) or files)
    choices.check()
    return choices


def _over(chosen: Choices, preset: Mapping[str, Any], what: str) -> Choices:
    """What was chosen, and the preset's values for the rest.

    Raises:
        Failure: The preset names something else, or gives it another kind of value.
    """
    values: dict[str, Any] = {}
    known = {each.name: each.default for each in fields(chosen)}
    for key, value in preset.items():
        if key not in known:
            raise Failure(f"{what}: unknown: {key}; there are {', '.join(known)}")
        kind = float if known[key] is None else type(known[key]) if key != "benchmarks" else list
        if not isinstance(value, (float, int) if kind is float else kind):
            raise Failure(f"{what}: {key}: must be a {kind.__name__}, is {value!r}")
        if getattr(chosen, key) in (known[key], 0, ""):
            values[key] = tuple(value) if isinstance(value, list) else value
    return replace(chosen, **values)


async def choose_model(connection: Connection, options: Options, *, given: bool = True) -> str:
    """The name of the model that the run uses, loaded if need be.

    Args:
        connection: To the inference service.
        options: Names the model and the engine; both may be empty.
        given: A person named the model, and not the preset.

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
    return await _load(connection, options.model, source, models, given=given)


async def _load(connection: Connection, name: str, source: str, models: list[inf.Model], *, given: bool) -> str:
    request = inf.LoadModelRequest(source=source)
    try:
        response = await connection.clients.call(connection.clients.inference.LoadModel, request, timeout=_LOAD_SECONDS)
    except grpc.aio.AioRpcError as error:
        served = ", ".join(model.name for model in models) or "no model"
        which = f"--model {name}" if given else f"the preset's model, {name}"
        advice = (
            f"--model {models[0].name} uses what is served; or stop the services" if models else "stop the services"
        )
        raise Failure(
            f"{which}: the inference service at {connection.addresses.inference} serves {served} and cannot load it "
            f"({error.details() or error.code().name}). {advice}"
        ) from error
    return response.model.name
