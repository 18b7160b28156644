"""`codealign run`: from seeds to a published version in one command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.collecting import given_instructions, read_seeds, store_seeds
from codealign.cli.connection import Connection, Target, connected
from codealign.cli.failures import EXIT_FAILURE, Failure
from codealign.cli.following import cancel_started, follow, print_outcome
from codealign.cli.interrupts import run_async
from codealign.cli.loop import LoopChoices, check_benchmarks, report_page
from codealign.cli.loop_steps import has_settled, outcome
from codealign.cli.options import (
    BenchmarksOption,
    EngineOption,
    ModelOption,
    PresetOption,
    RecordingOption,
    RecordOption,
    connects,
    preset_options,
)
from codealign.cli.plan import print_plan
from codealign.cli.presets import DEFAULT, load
from codealign.cli.progress import run_state
from codealign.cli.refusals import refusal
from codealign.cli.report import page
from codealign.cli.run_config import (
    RunChoices,
    choose_model,
    chosen_pipeline,
    loop_choices,
    run_config,
    series_of,
    writes,
)
from codealign.cli.run_file import RunFile, largest, read_run
from codealign.cli.seeds import STDLIB, collection_name
from codealign.cli.stack import DATA_SERVICES, SERVICES, UNWRITTEN_SERVICES, Options
from codealign.cli.terminal import StartDisplay, err, out, warn
from codealign.common.errors import violations

_TARGET = "Target"
_MOST_HOURS = 10**9
"""More than any run takes. Refuses infinity, which a configuration cannot have."""


@dataclass
class _Work:
    """Inputs and progress of one `codealign run`."""

    where: Target
    given: Options
    """Options as given by the user."""
    options: Options
    """Options filled in from the preset."""
    choices: RunChoices
    seeds: str
    """Directory to read seeds from, or for a pipeline that takes other records the collection. Empty: `collection`."""
    collection: str
    """Seed collection. Empty: named after the seeds that are read, or set by the run file."""
    timings: bool
    loop: LoopChoices
    file: RunFile
    rounds: pb.RoundSeries | None = None
    """Series of rounds, or None."""
    run_file: Path | None = None
    given_seeds: bool = False
    """Whether the user named the seeds, rather than the preset."""
    plan: bool = False
    """Print the plan only."""
    run_id: str = ""
    started_services: bool = True

    def interrupted(self) -> str:
        """Return the message for a user who interrupts the command."""
        if self.run_id and not self.started_services:
            short = self.run_id[:12]
            return (
                f"stopped watching; the run continues in the running services "
                f"(codealign watch {short}, codealign pause {short})"
            )
        return "stopped; finished work is kept. Run the same command to continue"


@connects("coordinator", "dataset")
def run(
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="PATH|stdlib",
            help="Directory of Python files to take seeds from, or for the pipeline imported a collection. Default: "
            "the preset's, otherwise stdlib.",
        ),
    ] = "",
    collection: Annotated[
        str,
        typer.Option(
            "--collection",
            metavar="COLLECTION|RUN",
            help="Use this existing collection (see `codealign seeds ls`, `codealign import`) instead of --seeds. For "
            "a pipeline that begins with instructions: the run, or the collection, whose instructions to use.",
        ),
    ] = "",
    n: Annotated[
        int,
        typer.Option(
            "--n",
            "-n",
            min=0,
            max=largest(pb.SeedSelection, "limit"),
            show_default=False,
            help="Number of seeds that pass the filters to use. 0: all.",
        ),
    ] = 0,
    name: Annotated[str, typer.Option("--name", help="Name of the run.")] = "",
    pipeline: Annotated[
        str, typer.Option("--pipeline", help="Pipeline, one of `codealign pipelines`. Default: selfcodealign.")
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Run file (YAML) with the run's settings. It wins over the preset, and options win over it.",
        ),
    ] = None,
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts",
            min=0,
            max=largest(pb.StageSettings, "attempts"),
            show_default=False,
            help="Maximum draws for each parent in the last writing stage. 0: the stage's default.",
        ),
    ] = 0,
    round_size: Annotated[
        int,
        typer.Option(
            "--round-size",
            min=0,
            max=largest(pb.StageSettings, "round_size"),
            show_default=False,
            help="Draws at once, until one passes. 0: the stage's default.",
        ),
    ] = 0,
    prefix_groups: Annotated[
        int,
        typer.Option(
            "--prefix-groups",
            min=0,
            max=largest(pb.StageSettings, "prefix_groups"),
            show_default=False,
            help="Few-shot orderings in the pool. 0: the stages' defaults.",
        ),
    ] = 0,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens",
            min=0,
            max=largest(pb.StageSettings, "max_tokens"),
            show_default=False,
            help="Maximum new tokens in the last writing stage. 0: the stage's default.",
        ),
    ] = 0,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            min=0,
            max=2,
            help="Sampling temperature of every writing stage. Default: the stages' defaults.",
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="Selection strategy: first-pass (the default), random-pass, random-response, failures-only, "
            "everything or agreement.",
        ),
    ] = "",
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=-largest(pb.Run, "seed"), max=largest(pb.Run, "seed"), help="Random seed of the run."
        ),
    ] = 0,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=1,
            max=largest(pb.Target, "rows"),
            help="Target: end the run with this many rows.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    token_budget: Annotated[
        int | None,
        typer.Option(
            "--token-budget",
            min=1,
            max=largest(pb.Target, "tokens"),
            help="Target: end the run before it exceeds this many tokens, prompts included.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    device_hours: Annotated[
        float | None,
        typer.Option(
            "--device-hours",
            min=0,
            max=_MOST_HOURS,
            help="Target: end the run after this many hours of inference, times --devices.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            "--devices",
            min=1,
            max=largest(pb.Target, "devices"),
            help="GPUs that the model uses, for --device-hours. Default: 1.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    preset: PresetOption = DEFAULT,
    difficulty: Annotated[
        list[str] | None,
        typer.Option(
            "--difficulty", help="Difficulty of tasks, e.g. easy (repeatable). Default: the stages' defaults."
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            "--runs",
            min=0,
            max=10,
            show_default=False,
            help="Executions of each program. Programs with differing verdicts are FLAKY and dropped. 0: one.",
        ),
    ] = 0,
    model: ModelOption = "",
    engine: EngineOption = "",
    recording: RecordingOption = None,
    record: RecordOption = None,
    benchmarks: BenchmarksOption = None,
    until: Annotated[
        str,
        typer.Option(
            "--until",
            help="Last step. data; training: tune the model on the data; evaluation: also evaluate both models. "
            "Default: data; with --rounds, evaluation.",
        ),
    ] = "",
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            min=1,
            max=100,
            show_default=False,
            help="Number of rounds: the model tuned in a round generates the next round's data (docs/rounds.md).",
        ),
    ] = None,
    lora_rank: Annotated[
        int,
        typer.Option(
            "--lora-rank",
            min=0,
            max=largest(training.Lora, "rank"),
            show_default=False,
            help="LoRA rank. 0: the preset's, or full fine-tuning.",
        ),
    ] = 0,
    epochs: Annotated[
        float,
        typer.Option(
            "--epochs",
            min=0,
            show_default=False,
            help="Training epochs. 0: the preset's, or the training service's default.",
        ),
    ] = 0.0,
    max_steps: Annotated[
        int,
        typer.Option(
            "--max-steps",
            min=0,
            max=largest(training.TrainingSpec, "max_steps"),
            show_default=False,
            help="Maximum optimizer steps. 0: the preset's, or no limit.",
        ),
    ] = 0,
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", help="Benchmark to evaluate on (repeatable). Default: the preset's."),
    ] = None,
    problems: Annotated[
        int | None,
        typer.Option(
            "--problems",
            min=0,
            max=largest(pb.EvaluationSettings, "limit"),
            show_default=False,
            help="Number of problems of each benchmark. 0: all. Default: the preset's.",
        ),
    ] = None,
    timings: Annotated[
        bool, typer.Option("--timings/--no-timings", help="Print times and tokens of each stage.")
    ] = True,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Check the run, its loop and its rounds, and print what the run would do and cost. Start no run.",
        ),
    ] = False,
    *,
    where: Target,
) -> None:
    """Run a pipeline from seeds to a published version of the data.

    A model writes tasks and answers, the sandbox runs and judges them, and the best rows are published. With --until
    evaluation, the model is also evaluated, tuned on the data, and evaluated again. With --rounds, this is repeated:
    the tuned model generates the next round's data.

    The command uses the services that are running in the home directory or at the given addresses. Otherwise it starts
    them and stops them at the end. To resume an interrupted run, repeat the same command.
    """
    defaults = load(preset)
    given_seeds = seeds
    seeds = seeds or defaults.source("seeds") or STDLIB
    given = Options(model, engine, recording, record, benchmarks)
    options = preset_options(defaults, given)
    options.check()
    warn(err, options.warning())
    file = read_run("--config", config) if config else RunFile()
    given_target = {"rows": rows, "tokens": token_budget, "device_hours": device_hours, "devices": devices}
    choices = RunChoices(
        name=name,
        limit=n,
        attempts=attempts,
        round_size=round_size,
        prefix_groups=prefix_groups,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        preset=preset,
        difficulties=tuple(difficulty or ()),
        runs=runs,
        pipeline=pipeline,
        strategy=strategy,
        target={name: value for name, value in given_target.items() if value is not None},
        file=file.settings,
    )
    choices.check()
    collection = collection or ("" if given_seeds else choices.file.get("seeds", {}).get("collection", ""))
    chosen = training.TrainingSpec(name=name, epochs=epochs, max_steps=max_steps)
    if lora_rank:
        chosen.lora.rank = lora_rank
    series = series_of(rounds, file)
    until = until or ("evaluation" if series else "data")
    loop = loop_choices(preset, until, chosen, benchmark or (), problems, files=options.benchmarks is not None)
    loop = loop.with_rounds() if series else loop
    if not where.explicit:
        where.home.prepare()
    read = "" if collection else seeds
    work = _Work(where, given, options, choices, read, collection, timings, loop, file, series, config)
    work.plan, work.given_seeds = plan, bool(given_seeds)
    if not choices.pipeline_name:
        _check_path(work)
    state = run_async(_run(work), work.interrupted)
    if state != pb.RUN_STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILURE)


async def _run(work: _Work) -> pb.RunState.ValueType:
    async with _connected(work) as connection:
        work.started_services = connection.started
        pipeline = await chosen_pipeline(connection, work.choices)
        if work.run_file is not None:
            # Read it again to check stage and property names, now that the pipeline is known.
            read_run("--config", work.run_file, pipeline)
        _choose_collection(work, pipeline)
        if _begins_with(pipeline) == pb.KIND_INSTRUCTION:
            work.collection = await given_instructions(connection, pipeline.name, work.collection)
        work.loop = await check_benchmarks(connection, work.loop, err)
        if work.seeds:
            collected = await asyncio.to_thread(read_seeds, work.seeds, err)
            work.collection = collection_name(work.seeds, collected.seeds)
            stored = await store_seeds(connection, collected, work.collection, err)
            err.print(Text(f"seeds {stored.collection}: {stored.inserted:,} new, {stored.existed:,} existing"))
        # Services that this command starts share one machine, which cannot hold two models, unless they are needed.
        needs_both = work.rounds is not None and work.rounds.generates == "instructions"
        loop = work.loop.loop(one_model=connection.started and not needs_both)
        remote = bool(work.where.explicit)
        in_file = not work.given.model and "model" in work.choices.file
        unused = loop is None and not writes(pipeline)
        if unused and work.given.model:
            raise Failure(
                f"--model: has no effect, since no model writes in pipeline {pipeline.name}: leave it out, or add "
                "--until training to tune it on the rows"
            )
        model = (
            work.given.model
            if remote or in_file or unused
            else await choose_model(connection, work.options, given=bool(work.given.model))
        )
        config = run_config(work.choices, work.collection, model, pipeline)
        if work.plan:
            coordinator = connection.clients.coordinator
            asked = api.PlanRunRequest(config=config, loop=loop, series=work.rounds)
            planned = await _configured(connection, coordinator.PlanRun, asked, work.file)
            print_plan(out, planned, await _state_of(connection, planned.run_id))
            return pb.RUN_STATE_SUCCEEDED
        request = api.CreateRunRequest(config=config, loop=loop, series=work.rounds)
        created = await _create(connection, request, work.file)
        work.run_id = created.run.id
        _say_created(created)
        last = created.run
        if not has_settled(last) or work.rounds is not None:
            try:
                last = await follow(connection, created.run.id, err)
            except asyncio.CancelledError:
                await cancel_started(connection, created.run.id)
                raise
        if loop is None:
            # A loop that an earlier command added, and that may have been interrupted, is not part of this command.
            last.ClearField("loop")
        if work.rounds is None:
            last.ClearField("series")
        await _tell(connection, work, last)
        return outcome(last)


async def _state_of(connection: Connection, run_id: str) -> str:
    """Return the state of a run, or "" if it does not exist."""
    try:
        found = await connection.call(connection.clients.coordinator.GetRun, api.GetRunRequest(run=run_id))
    except Failure as failure:
        cause = failure.__cause__
        if isinstance(cause, grpc.aio.AioRpcError) and cause.code() == grpc.StatusCode.NOT_FOUND:
            return ""
        raise
    return run_state(found.run)


def _names_no_path(work: _Work) -> bool:
    return bool(work.seeds) and work.seeds != STDLIB and not Path(work.seeds).exists()


def _check_path(work: _Work) -> None:
    if _names_no_path(work):
        raise Failure(f"--seeds: no such file or directory: {work.seeds}")


def _choose_collection(work: _Work, pipeline: api.Pipeline) -> None:
    """Check where the seeds come from. A pipeline that takes other records than seeds takes them from a collection.

    Raises:
        Failure: There is no such directory, or no collection is named.
    """
    makes = _begins_with(pipeline)
    if makes == pb.KIND_SEED:
        _check_path(work)
        return
    if not work.collection and _names_no_path(work):
        work.collection = work.seeds
    if makes == pb.KIND_INSTRUCTION:
        if work.given_seeds and not work.collection:
            raise Failure(f"--seeds: pipeline {pipeline.name} begins with instructions: use --collection")
    elif not work.collection:
        raise Failure(
            f"pipeline {pipeline.name} takes imported records, not files: name their collection with --collection (see "
            "`codealign import` and `codealign data ls`)"
        )
    work.seeds = ""


def _begins_with(pipeline: api.Pipeline) -> pb.Kind.ValueType:
    return next((stage.makes for stage in pipeline.stages if stage.role == api.STAGE_ROLE_SEEDS), pb.KIND_SEED)


async def _create(connection: Connection, request: api.CreateRunRequest, file: RunFile) -> api.CreateRunResponse:
    created: api.CreateRunResponse = await _configured(
        connection, connection.clients.coordinator.CreateRun, request, file
    )
    return created


async def _configured(connection: Connection, method: Any, request: Any, file: RunFile) -> Any:
    """Call a method that takes a configuration.

    Raises:
        Failure: The coordinator refuses the configuration; the message names each invalid field as in the run file.
    """
    try:
        return await connection.call(method, request)
    except Failure as failure:
        wrong = violations(failure.__cause__) if isinstance(failure.__cause__, grpc.aio.AioRpcError) else []
        if not wrong:
            raise
        raise refusal(request.config, wrong, file) from failure


async def _tell(connection: Connection, work: _Work, run: api.RunStatus) -> None:
    """Print the report and write its page."""
    report = await print_outcome(connection, run, out, timings=work.timings)
    written = page.write(report, report_page(work.where.home.reports, run.id))
    out.print(Text(f"report: {written}"))


@contextlib.asynccontextmanager
async def _connected(work: _Work) -> AsyncIterator[Connection]:
    display = StartDisplay(err)
    needs: tuple[str, ...] = SERVICES if work.loop.trains else DATA_SERVICES
    if work.where.explicit:
        needs = ("coordinator", "dataset")
    try:
        if needs == DATA_SERVICES and (not work.seeds or _names_no_path(work)) and not await _writes(work, display):
            needs = UNWRITTEN_SERVICES
        async with connected(
            work.where, needs, options=work.options, on_event=display, on_wait=display.wait
        ) as connection:
            display.close()
            if not connection.started:
                _check_unused(work.given)
            yield connection
    finally:
        display.close()


async def _writes(work: _Work, display: StartDisplay) -> bool:
    """Return whether a model writes in the run's pipeline. Otherwise no inference service is started."""
    if not work.choices.pipeline_name or work.loop.loop(one_model=True) is not None:
        return True
    needs = ("coordinator", "dataset")
    async with connected(work.where, needs, options=Options(), on_event=display, on_wait=display.wait) as connection:
        pipeline = await chosen_pipeline(connection, work.choices)
        _choose_collection(work, pipeline)
        return writes(pipeline)


def _check_unused(options: Options) -> None:
    """Refuse options that running services would ignore."""
    given = {"--record": options.record, "--benchmarks": options.benchmarks, "--recording": options.recording}
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise Failure(
            f"{', '.join(unused)}: has no effect on services that are already running; pass it to `codealign up`, or "
            "use another --home"
        )


def _say_created(created: api.CreateRunResponse) -> None:
    short = created.run.id[:12]
    if not created.existed:
        text = f"run {short}: new"
    elif created.run.state == pb.RUN_STATE_SUCCEEDED:
        text = f"run {short}: already succeeded with this configuration"
    else:
        text = f"run {short}: resuming from the finished work"
    err.print(Text(text))
