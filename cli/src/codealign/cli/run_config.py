"""From options to a run's configuration, and to the model that writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import grpc

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.loop import BENCHMARKS, EvaluationChoices, LoopChoices
from codealign.cli.stack import Options, model_source
from codealign.cli.tuning import TuningChoices

PRESETS = ("default", "paper", "small")
"""default: the coordinator's defaults. paper: as the reference does it, with its waste. small: for a small model on
a small machine: easy tasks, short answers at a lower temperature, few draws, three examples of answers in place of
one, one shared prefix for each stage; tuned with LoRA, activations computed twice; evaluated on ten problems of each
benchmark."""
SMALL_ATTEMPTS, SMALL_MAX_TOKENS, SMALL_TEMPERATURE, SMALL_FEW_SHOTS = 4, 640, 0.4, 3
SMALL_TUNING = TuningChoices(lora_rank=16, learning_rate=1e-4, batch_size=2, gradient_checkpointing=True)
SMALL_PROBLEMS, SMALL_SOLUTION_TOKENS = 10, 512
PAPER_ATTEMPTS = 10
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
    preset: str = "default"
    """One of PRESETS."""
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
    if choices.preset not in PRESETS:
        raise Failure(f"--preset: unknown preset {choices.preset!r}; there are {', '.join(PRESETS)}")
    run = pb.Run(
        name=choices.name,
        seeds=pb.SeedSelection(collection=collection, limit=choices.limit),
        model=pb.ModelChoice(model=model),
        responses=pb.GenerationSettings(
            attempts=choices.attempts, round_size=choices.round_size, max_tokens=choices.max_tokens
        ),
        seed=choices.seed,
        difficulties=choices.difficulties,
    )
    if choices.runs:
        run.execution.runs = choices.runs
    paper = choices.preset == "paper"
    for settings in (run.concepts, run.instructions, run.responses):
        if paper:
            settings.unpooled = True
        else:
            settings.prefix_groups = choices.prefix_groups
        if choices.temperature is not None:
            settings.temperature = choices.temperature
    if choices.preset == "small":
        _for_a_small_model(run, choices)
    if paper:
        run.responses.round_size = choices.attempts or PAPER_ATTEMPTS
        run.selection.random_pass = True
    return run


def _for_a_small_model(run: pb.Run, choices: RunChoices) -> None:
    """Fill in what was not chosen."""
    run.responses.attempts = choices.attempts or SMALL_ATTEMPTS
    run.responses.max_tokens = choices.max_tokens or SMALL_MAX_TOKENS
    run.responses.few_shots = SMALL_FEW_SHOTS
    if choices.temperature is None:
        run.responses.temperature = SMALL_TEMPERATURE
    for settings in (run.concepts, run.instructions, run.responses):
        settings.prefix_groups = choices.prefix_groups or 1
    if not choices.difficulties:
        run.difficulties.append("easy")


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
    evaluation = EvaluationChoices(tuple(benchmarks or BENCHMARKS), limit=limit or 0)
    if preset == "small":
        tuning = replace(
            tuning,
            lora_rank=tuning.lora_rank or SMALL_TUNING.lora_rank,
            learning_rate=tuning.learning_rate or SMALL_TUNING.learning_rate,
            batch_size=tuning.batch_size or SMALL_TUNING.batch_size,
            gradient_checkpointing=SMALL_TUNING.gradient_checkpointing,
        )
        evaluation = replace(
            evaluation, limit=SMALL_PROBLEMS if limit is None else limit, max_tokens=SMALL_SOLUTION_TOKENS
        )
    choices = LoopChoices(until, tuning, evaluation, benchmarks_named=bool(benchmarks) or files)
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
            f"load it ({error.details() or error.code().name}): stop the services, or use what they serve"
        ) from error
    return response.model.name
