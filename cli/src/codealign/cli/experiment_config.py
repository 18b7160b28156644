"""Build an experiment from its file and the command's options, and translate complaints about it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import grpc
from google.protobuf import json_format

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli import presets
from codealign.cli.connection import Connection
from codealign.cli.experiments import Arm, ExperimentFile
from codealign.cli.failures import Failure
from codealign.cli.loop import evaluation_settings
from codealign.cli.refusals import as_written
from codealign.cli.run_config import RunChoices, choose_model, run_config
from codealign.cli.run_file import merged
from codealign.cli.stack import Options, model_source
from codealign.common.errors import violations

_LOAD_SECONDS = 3600.0
_VALIDATE_SECONDS = 600.0
OWN = ""
"""Alias of the model that is trained unless an arm says otherwise."""


@dataclass(frozen=True)
class Choices:
    """Options of the command that change the file's experiment."""

    preset: str = ""
    n: int | None = None
    seeds: Sequence[int] = ()
    functions: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    """Sources of models by alias; OWN for the trained model."""


def chosen(file: ExperimentFile, choices: Choices) -> ExperimentFile:
    """Return the file with the options' values. Models without a source have the preset's of the same alias.

    Raises:
        Failure: A model has no source, or an option names a model that the file does not have.
    """
    sources = dict(choices.models)
    sources.pop(OWN, None)
    for alias in sources:
        if alias not in file.models:
            valid = ", ".join(file.models) or "none"
            raise Failure(f"--model {alias}=...: {file.what} has no model {alias!r}; valid: {valid}")
    preset = choices.preset or file.preset or presets.DEFAULT
    located: dict[str, str] = {}
    if OWN not in choices.models:  # the preset's models belong to the preset's own
        given = presets.load(preset)
        located = {alias: given.model_source(alias) for alias in file.models if alias in given.models}
    models = {alias: sources.get(alias) or source or located.get(alias, "") for alias, source in file.models.items()}
    missing = [
        (f"models.{alias}", f"has no source: pass --model {alias}=SOURCE") for alias in models if not models[alias]
    ]
    if missing:
        raise file.failure(missing)
    return replace(
        file,
        preset=preset,
        n=file.n if choices.n is None else choices.n,
        seeds=choices.seeds or file.seeds,
        functions=choices.functions or file.functions,
        models=models,
    )


async def find_models(
    connection: Connection, file: ExperimentFile, options: Options, *, given: bool
) -> dict[str, inf.Model]:
    """Return the experiment's models by alias, loading those that are not loaded.

    On services of this command, which share one machine, a model is unloaded before the next one is loaded.

    Raises:
        Failure: A model cannot be loaded.
    """
    inference = connection.clients.inference
    own = await choose_model(connection, options, given=given)
    found: dict[str, inf.Model] = {}
    for alias, source in {OWN: own, **file.models}.items():
        models = (await connection.call(inference.ListModels, inf.ListModelsRequest())).models
        located = source if alias == OWN else model_source(source)
        there = next((model for model in models if located in (model.name, model.source)), None)
        if there is None:
            if connection.started:
                for model in models:
                    await connection.call(inference.UnloadModel, inf.UnloadModelRequest(name=model.name))
            request = inf.LoadModelRequest(source=located)
            try:
                there = (await connection.clients.call(inference.LoadModel, request, timeout=_LOAD_SECONDS)).model
            except grpc.aio.AioRpcError as error:
                raise Failure(
                    f"{file.what}: models.{alias}: the inference service at {connection.addresses.inference} cannot "
                    f"load {source}: {error.details() or error.code().name}"
                ) from error
        found[alias] = there
    return found


async def build(
    connection: Connection, file: ExperimentFile, models: Mapping[str, inf.Model], collection: str
) -> pb.Experiment:
    """Return the experiment. What is left out is filled in by the coordinator.

    Args:
        connection: To the coordinator.
        file: The file with the options' values.
        models: The models by alias.
        collection: Collection of the seed functions.
    """
    listed = await connection.call(connection.clients.coordinator.ListPipelines, api.ListPipelinesRequest())
    pipelines = {each.name: each for each in listed.pipelines}
    default = await connection.call(connection.clients.coordinator.GetPipeline, api.GetPipelineRequest())
    pipelines[""] = default.pipeline
    preset = presets.load(file.preset)
    # Services of this command share one machine, which cannot hold two models.
    experiment = pb.Experiment(name=file.name, seeds=file.seeds, claims=file.claims, one_model=connection.started)
    for model in {model.name: model for model in models.values()}.values():
        choice = pb.ModelChoice(model=model.name, revision=model.revision)
        experiment.models.add(model=choice, source=model.source)
    for values in file.evaluations or preset.evaluations or ({},):
        experiment.evaluations.append(evaluation_settings(values))
    for arm in file.arms:
        trained = models[arm.model]
        made = experiment.arms.add(
            name=arm.name, model=trained.name, rows=arm.rows, instructions_of=arm.instructions_of
        )
        if arm.untrained:
            continue
        writer = models[arm.generator or arm.model]
        made.run.CopyFrom(_run(file, arm, writer.name, collection, pipelines, models))
        spec = merged(merged(preset.training, file.training), arm.training)
        made.training.CopyFrom(json_format.ParseDict(spec, training.TrainingSpec()))
    return experiment


def _run(
    file: ExperimentFile,
    arm: Arm,
    model: str,
    collection: str,
    pipelines: Mapping[str, api.Pipeline],
    models: Mapping[str, inf.Model],
) -> pb.Run:
    """Return the run that makes an arm's data. The coordinator reports a pipeline that it does not have."""
    shared = merged(file.run, arm.run)
    choices = RunChoices(
        preset=file.preset,
        limit=0 if arm.instructions_of else file.n,
        pipeline=arm.pipeline,
        strategy=arm.strategy,
        file=shared,
    )
    seeds = "" if arm.instructions_of else collection
    pipeline = pipelines.get(choices.pipeline_name)
    if pipeline is None:
        return pb.Run(
            pipeline=choices.pipeline_name,
            seeds=pb.SeedSelection(collection=seeds),
            model=pb.ModelChoice(model=model),
            selection=pb.SelectionSettings(strategy=arm.strategy),
        )
    run = run_config(choices, seeds, model, pipeline)
    for stage in run.stages:
        if stage.model.model in models and stage.model.model != OWN:  # without one, it is the run's
            stage.model.model = models[stage.model.model].name
    return run


async def validated(connection: Connection, file: ExperimentFile, experiment: pb.Experiment) -> pb.Experiment:
    """Return the experiment as the coordinator fills it in.

    Raises:
        Failure: Lists everything that is invalid or impossible, by its path in the file.
    """
    request = api.CreateExperimentRequest(config=experiment, validate_only=True)
    create = connection.clients.coordinator.CreateExperiment
    try:
        return (await connection.call(create, request, timeout=_VALIDATE_SECONDS)).experiment.config
    except Failure as failure:
        cause = failure.__cause__
        wrong = violations(cause) if isinstance(cause, grpc.aio.AioRpcError) else []
        if not wrong:
            raise
        raise file.failure([(_place(path, experiment, file), text) for path, text in wrong]) from failure


_ARM = re.compile(r"config\.arms\[(?P<arm>\d+)\]\.?(?P<rest>.*)")
_RENAMED = {
    "run.pipeline": "pipeline",
    "run.selection.strategy": "strategy",
    "run.model.model": "generator",
    "run.model": "generator",
}


def _place(path: str, experiment: pb.Experiment, file: ExperimentFile) -> str:
    """Convert a path in the request to one in the file."""
    if not (found := _ARM.match(path)) or (number := int(found["arm"])) >= len(file.arms):
        return path.removeprefix("config.")
    arm, rest = file.arms[number], found["rest"]
    if rest.startswith("run."):
        rest = _RENAMED.get(rest) or "run." + as_written(rest.removeprefix("run."), experiment.arms[number].run)
    place = f"{arm.place}.{rest}" if rest else arm.place
    return place if arm.place.startswith("arms") else f"{place} (arm {arm.name})"


async def count_tokens(connection: Connection, experiment: pb.Experiment) -> Sequence[api.PlanRunResponse | None]:
    """Return the plan of each distinct run of one seed, or None for one that cannot be planned yet.

    Runs that differ in the selection strategy alone share their completions, and are planned once.
    """
    distinct: dict[bytes, pb.Run] = {}
    for arm in experiment.arms:
        if arm.HasField("run"):
            run = pb.Run()
            run.CopyFrom(arm.run)
            run.selection.strategy = ""
            distinct.setdefault(run.SerializeToString(deterministic=True) + arm.instructions_of.encode(), arm.run)
    return await asyncio.gather(*(_plan(connection, run) for run in distinct.values()))


async def _plan(connection: Connection, run: pb.Run) -> api.PlanRunResponse | None:
    if not run.seeds.collection:
        return None
    request = api.PlanRunRequest()
    request.config.CopyFrom(bare(run))
    try:
        return await connection.call(connection.clients.coordinator.PlanRun, request)
    except Failure:
        return None  # its model is not loaded now


def bare(run: pb.Run) -> pb.Run:
    """Return a run without the fields that only the coordinator may set."""
    found = pb.Run()
    found.CopyFrom(run)
    for stage in found.stages:
        stage.version = 0
    found.execution.image_digest = found.execution.python_version = ""
    found.selection.forbidden_texts_sha256, found.selection.rules_version = "", 0
    return found
