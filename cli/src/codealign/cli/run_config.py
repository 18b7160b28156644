"""From options to a run's configuration, and to the model that writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import grpc

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.cli import presets
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.loop import EvaluationChoices, LoopChoices
from codealign.cli.stack import Options, model_source
from codealign.cli.tuning import TuningChoices

Choices = TypeVar("Choices", TuningChoices, EvaluationChoices)
_LOAD_SECONDS = 3600.0


@dataclass(frozen=True)
class RunChoices:
    """What a person may choose about a run's data. 0 and "" stand for the coordinator's defaults."""

    name: str = ""
    limit: int = 0
    """Seeds."""
    attempts: int = 0
    """Responses for each instruction at most."""
    round_size: int = 0
    prefix_groups: int = 0
    max_tokens: int = 0
    """New tokens of a response."""
    temperature: float | None = None
    seed: int = 0
    preset: str = presets.DEFAULT
    """Fills in what is not chosen; see `presets`."""
    difficulties: tuple[str, ...] = ()
    """Of tasks; empty: easy, medium and hard."""
    runs: int = 0
    """Of each program."""


def run_config(choices: RunChoices, collection: str, model: str) -> pb.Run:
    """The configuration; what is not chosen is left to the coordinator.

    Args:
        choices: What was chosen.
        collection: Of seeds.
        model: As the inference service names it. Empty: its only one.

    Raises:
        Failure: Names the option that is wrong.
    """
    run = pb.Run()
    run.CopyFrom(presets.load(choices.preset).run)
    run.name, run.seed = choices.name, choices.seed
    run.seeds.MergeFrom(pb.SeedSelection(collection=collection, limit=choices.limit))
    run.model.model = model
    for settings in (run.concepts, run.instructions, run.responses):
        if not settings.unpooled:
            settings.prefix_groups = choices.prefix_groups or settings.prefix_groups
        if choices.temperature is not None:
            settings.temperature = choices.temperature
    for field in ("attempts", "round_size", "max_tokens"):
        if chosen := getattr(choices, field):
            setattr(run.responses, field, chosen)
    if choices.attempts and not choices.round_size:
        run.responses.round_size = min(run.responses.round_size, choices.attempts)
    if choices.difficulties:
        run.difficulties[:] = choices.difficulties
    if choices.runs:
        run.execution.runs = choices.runs
    return run


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
            f"load it ({error.details() or error.code().name}): stop the services, or use what they serve"
        ) from error
    return response.model.name
