"""`codealign run`: from seeds to a published version, in one command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.collecting import read_seeds, store_seeds
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
from codealign.cli.presets import DEFAULT, load
from codealign.cli.refusals import refusal
from codealign.cli.report import page
from codealign.cli.run_config import RunChoices, choose_model, loop_choices, run_config, run_pipeline
from codealign.cli.run_file import RunFile, read_run
from codealign.cli.seeds import STDLIB, Collected, collection_name
from codealign.cli.stack import DATA_SERVICES, SERVICES, Options
from codealign.cli.terminal import StartDisplay, err, out, warn
from codealign.common.errors import violations


@dataclass
class _Work:
    """What one `codealign run` does, and how far it has come."""

    where: Target
    given: Options
    """By the person."""
    options: Options
    """With the preset's for what was not given."""
    choices: RunChoices
    collected: Collected | None
    collection: str
    timings: bool
    loop: LoopChoices
    file: RunFile
    run_file: Path | None = None
    run_id: str = ""
    started_services: bool = True

    def interrupted(self) -> str:
        """What to tell a person who has stopped it."""
        if self.run_id and not self.started_services:
            short = self.run_id[:12]
            return (
                f"stopped watching; the run goes on in the services that are up "
                f"(codealign watch {short}, codealign pause {short})"
            )
        return "stopped; nothing finished is lost; the same command goes on"


@connects("coordinator", "dataset")
def run(
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="PATH|stdlib",
            help="Folder of Python files to take seeds from. Default: the preset's, else stdlib.",
        ),
    ] = "",
    collection: Annotated[
        str, typer.Option("--collection", help="Use these collected seeds (codealign seeds ls) instead of reading any.")
    ] = "",
    n: Annotated[int, typer.Option("--n", "-n", min=0, help="Use so many good seeds. 0: all.")] = 0,
    name: Annotated[str, typer.Option("--name", help="A name for the run.")] = "",
    pipeline: Annotated[
        str, typer.Option("--pipeline", help="One of `codealign pipelines`. Default: selfcodealign.")
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A run file (YAML): a run's settings. Wins over the preset, options over it.",
        ),
    ] = None,
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts",
            min=0,
            help="Draws for each parent at most, of the last stage that writes. 0: its default, 10.",
        ),
    ] = 0,
    round_size: Annotated[
        int, typer.Option("--round-size", min=0, help="Of these, drawn at once, until one passes. 0: the default, 2.")
    ] = 0,
    prefix_groups: Annotated[
        int, typer.Option("--prefix-groups", min=0, help="Few-shot orderings in the pool. 0: the default, 32.")
    ] = 0,
    max_tokens: Annotated[
        int,
        typer.Option("--max-tokens", min=0, help="New tokens, of the last stage that writes. 0: its default, 1,024."),
    ] = 0,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, max=2, help="Of every stage that writes. Default 0.7.")
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", help="Of selection: first-pass (the default), random-pass, failures-only, everything."
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Everything random derives from it.")] = 0,
    preset: PresetOption = DEFAULT,
    difficulty: Annotated[
        list[str] | None,
        typer.Option("--difficulty", help="Of tasks, in the stages that draw one (repeat): easy, medium, hard."),
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", min=0, max=10, help="Of each program; differing verdicts: FLAKY, dropped. 0: once.")
    ] = 0,
    model: ModelOption = "",
    engine: EngineOption = "",
    recording: RecordingOption = None,
    record: RecordOption = None,
    benchmarks: BenchmarksOption = None,
    until: Annotated[
        str, typer.Option("--until", help="data; training: tune the model on it; evaluation: and evaluate both.")
    ] = "data",
    lora_rank: Annotated[int, typer.Option("--lora-rank", min=0, help="LoRA. 0: the preset's; small 16.")] = 0,
    epochs: Annotated[float, typer.Option("--epochs", min=0, help="Of training. 0: 4, the paper's.")] = 0.0,
    max_steps: Annotated[int, typer.Option("--max-steps", min=0, help="Of training. 0: as the epochs say.")] = 0,
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", help="To evaluate on (repeat). Default: the preset's."),
    ] = None,
    problems: Annotated[
        int | None, typer.Option("--problems", min=0, help="Of each benchmark. Default: all (0); small: 10.")
    ] = None,
    timings: Annotated[bool, typer.Option("--timings/--no-timings", help="Print what each stage took.")] = True,
    *,
    where: Target,
) -> None:
    """Run a pipeline from seeds to a published version: a model writes, the sandbox judges, rows are selected.

    With --until evaluation it closes the loop: the model is evaluated, tuned on the version, evaluated again.

    Uses the services that are up in the home folder, or those whose addresses are given; else starts them for the
    duration. The same command goes on where it stopped.
    """
    defaults = load(preset)
    given_seeds = seeds
    seeds = seeds or defaults.source("seeds") or STDLIB
    given = Options(model, engine, recording, record, benchmarks)
    options = preset_options(defaults, given)
    options.check()
    warn(err, options.warning())
    file = read_run("--config", config) if config else RunFile()
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
        file=file.settings,
    )
    choices.check()
    collection = collection or ("" if given_seeds else choices.file.get("seeds", {}).get("collection", ""))
    chosen = training.TrainingSpec(name=name, epochs=epochs, max_steps=max_steps)
    if lora_rank:
        chosen.lora.rank = lora_rank
    loop = loop_choices(preset, until, chosen, benchmark or (), problems, files=options.benchmarks is not None)
    if not where.explicit:
        where.home.prepare()
    collected = None if collection else read_seeds(seeds, err)
    named = collection or collection_name(seeds, collected.seeds if collected else [])
    work = _Work(where, given, options, choices, collected, named, timings, loop, file, config)
    state = run_async(_run(work), work.interrupted)
    if state != pb.RUN_STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILURE)


async def _run(work: _Work) -> pb.RunState.ValueType:
    async with _connected(work) as connection:
        work.started_services = connection.started
        pipeline = await run_pipeline(connection, work.choices.pipeline_name)
        if work.run_file is not None:
            read_run("--config", work.run_file, pipeline)  # again, now that its stages are known
        work.loop = await check_benchmarks(connection, work.loop, err)
        if work.collected is not None:
            stored = await store_seeds(connection, work.collected, work.collection, err)
            err.print(Text(f"seeds {stored.collection}: {stored.inserted:,} new, {stored.existed:,} there already"))
        remote = bool(work.where.explicit)
        in_file = not work.given.model and "model" in work.choices.file
        model = work.given.model if remote or in_file else await choose_model(connection, work.options)
        config = run_config(work.choices, work.collection, model, pipeline)
        # Services that this command starts share a machine, which does not hold two models.
        loop = work.loop.loop(one_model=connection.started)
        request = api.CreateRunRequest(config=config, loop=loop)
        created = await _create(connection, request, work.file)
        work.run_id = created.run.id
        _say_created(created)
        last = created.run
        if not has_settled(last):
            try:
                last = await follow(connection, created.run.id, err)
            except asyncio.CancelledError:
                await cancel_started(connection, created.run.id)
                raise
        await _tell(connection, work, last)
        return outcome(last)


async def _create(connection: Connection, request: api.CreateRunRequest, file: RunFile) -> api.CreateRunResponse:
    create = connection.clients.coordinator.CreateRun
    try:
        return await connection.call(create, request)
    except Failure as failure:
        wrong = violations(failure.__cause__) if isinstance(failure.__cause__, grpc.aio.AioRpcError) else []
        if not wrong:
            raise
        raise refusal(request.config, wrong, file) from failure


async def _tell(connection: Connection, work: _Work, run: api.RunStatus) -> None:
    """Print the report, and write its page."""
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
        async with connected(
            work.where, needs, options=work.options, on_event=display, on_wait=display.wait
        ) as connection:
            display.close()
            if not connection.started:
                _check_unused(work.given)
            yield connection
    finally:
        display.close()


def _check_unused(options: Options) -> None:
    """Options of services that are up already would be ignored: say so instead."""
    given = {"--record": options.record, "--benchmarks": options.benchmarks, "--recording": options.recording}
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise Failure(
            f"{', '.join(unused)}: the services are up already, so this changes nothing; give it to `codealign up`, or "
            "choose another --home"
        )


def _say_created(created: api.CreateRunResponse) -> None:
    short = created.run.id[:12]
    if not created.existed:
        text = f"run {short}: new"
    elif created.run.state == pb.RUN_STATE_SUCCEEDED:
        text = f"run {short}: this configuration was run before, and has succeeded"
    else:
        text = f"run {short}: resuming; what is finished is not done again"
    err.print(Text(text))
