"""`codealign experiment`: a comparison from a file or preset to a table, a plot and decided claims."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import experiment_plan, presets
from codealign.cli.collecting import read_seeds, store_seeds
from codealign.cli.connection import Connection, Target, connected
from codealign.cli.experiment_config import OWN, Choices, build, chosen, count_tokens, find_models, validated
from codealign.cli.experiments import ExperimentFile, load, names
from codealign.cli.failures import EXIT_FAILURE, Failure
from codealign.cli.following import CANCEL_SECONDS, watch_to_its_end
from codealign.cli.interrupts import run_async
from codealign.cli.options import BenchmarksOption, EngineOption, RecordingOption, connects, preset_options, services
from codealign.cli.progress import state_name
from codealign.cli.report import experiment as pages
from codealign.cli.run_config import RunChoices
from codealign.cli.run_file import largest
from codealign.cli.seeds import STDLIB, collection_name
from codealign.cli.stack import SERVICES, Options
from codealign.cli.terminal import StartDisplay, err, out, printable, warn, whole
from codealign.common.clients import NO_RETRY

_COMMAND = "run"
_ALIAS = re.compile(r"[^/:\\]*")
_GET_SECONDS = 600.0
_FINISHED = (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED)


class _Group(TyperGroup):
    """Group in which an argument that is no subcommand is the experiment to carry out."""

    default = _COMMAND
    """Name of the command that is meant then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the name of the default command."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Compare ways to make data: `codealign experiment PRESET|FILE` carries out a matrix of runs, trainings and "
    f"evaluations, and writes a table, a plot and a sentence for each claim. Presets: {', '.join(names())}.",
)

ExperimentArgument = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Id, its first 6 or more digits, or the experiment's name.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FOLDER", help="Where to write NAME.md, NAME.svg and NAME.json. Default: HOME/experiments."
    ),
]


@dataclass
class _Work:
    """Inputs and progress of one `codealign experiment`."""

    where: Target
    file: ExperimentFile
    options: Options
    model_given: bool
    folder: Path
    plan_only: bool
    id: str = ""
    started_services: bool = True

    def interrupted(self) -> str:
        """Return the message for a user who interrupts the command."""
        if self.id and not self.started_services:
            return (
                "stopped watching; the experiment continues in the running services "
                f"(codealign experiment pause {self.id[:12]})"
            )
        return "paused; finished work is kept. Run the same command to continue"


@app.command(_COMMAND, hidden=True)
@connects("coordinator", "dataset", "inference")
def run(
    experiment: Annotated[
        str, typer.Argument(metavar="PRESET|FILE", help=f"One of {', '.join(names())}, or an experiment file (YAML).")
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the results. Default: the file's.")] = "",
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="0,1,2", help="Seeds of the runs. Default: the file's.")
    ] = "",
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "-n",
            min=0,
            max=largest(pb.SeedSelection, "limit"),
            help="Seed functions of each run. 0: all. Default: the file's.",
            show_default=False,
        ),
    ] = None,
    functions: Annotated[
        str,
        typer.Option(
            "--functions",
            metavar="PATH|stdlib",
            help="Where to take seed functions from. Default: the file's, then the preset's.",
        ),
    ] = "",
    preset: Annotated[
        str,
        typer.Option(
            "--preset", metavar="NAME|FILE", help="Values for what the experiment leaves out. Default: the file's."
        ),
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="[ALIAS=]SOURCE",
            help="Model to train, or a further model of the file by its alias (repeatable): hub id, directory or URL.",
        ),
    ] = None,
    engine: EngineOption = "",
    recording: RecordingOption = None,
    benchmarks: BenchmarksOption = None,
    folder: OutOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Validate and print the forecast, without starting.")] = False,
    *,
    where: Target,
) -> None:
    """Carry out an experiment and write its results.

    Runs, trainings and evaluations that exist already are reused. Ctrl-C pauses an experiment whose services this
    command started; the same command continues.
    """
    sources = _models(model or ())
    choices = Choices(preset, n, _numbers(seeds), functions, sources)
    file = chosen(load(experiment), choices)
    file = replace(file, name=name or file.name)
    defaults = presets.load(file.preset)
    RunChoices(preset=file.preset).check()
    options = preset_options(defaults, Options(sources.get(OWN, ""), engine, recording, None, benchmarks))
    options.check()
    warn(err, options.warning())
    if where.explicit:
        options = replace(options, model=sources.get(OWN, ""))  # running services: their only model, or the named one
    else:
        where.home.prepare()
    folder = folder or where.home.root / "experiments"
    _check_folder(folder)
    work = _Work(where, file, options, OWN in sources, folder, plan)
    state = run_async(_run(work), work.interrupted)
    if state != pb.RUN_STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILURE)


def _check_folder(folder: Path) -> None:
    """Check that results can be written to a folder, before anything is spent.

    Raises:
        Failure: It is a file, or lies in one, or may not be written to.
    """
    there = next((each for each in (folder, *folder.absolute().parents) if each.exists()), None)
    if there is not None and not there.is_dir():
        raise Failure(f"--out: {there} is a file; name a folder")
    if there is not None and not os.access(there, os.W_OK | os.X_OK):
        raise Failure(f"--out: {there} may not be written to")


def _models(given: list[str] | tuple[()]) -> dict[str, str]:
    """Return sources by alias."""
    found: dict[str, str] = {}
    for each in given:
        alias, equals, source = each.partition("=")
        if not equals or not _ALIAS.fullmatch(alias):  # a path or URL may have "=" in it
            alias, source = OWN, each
        if not source:
            raise Failure(f"--model {each}: names no source")
        if alias in found:
            raise Failure(f"--model {each}: {alias or 'the model to train'} is given twice")
        found[alias] = source
    return found


def _numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise Failure(f"--seeds: must be whole numbers with commas between them, such as 0,1,2; is {text!r}") from None
    if large := [each for each in found if abs(each) > largest(pb.Experiment, "seeds")]:
        raise Failure(f"--seeds: {large[0]} is too large")
    if len(set(found)) < len(found):
        raise Failure(f"--seeds: {text} names a seed twice")
    return found


async def _run(work: _Work) -> pb.RunState.ValueType:
    async with _connected(work) as connection:
        work.started_services = connection.started
        file = work.file
        collection = str(file.run.get("seeds", {}).get("collection", ""))
        if not collection:
            source = _functions(file)
            collected = await asyncio.to_thread(read_seeds, source, err)
            collection = collection_name(source, collected.seeds)
            await store_seeds(connection, collected, collection, err)
        models = await find_models(connection, file, work.options, given=work.model_given)
        given = await build(connection, file, models, collection)
        embedded = not work.model_given and presets.load(file.preset).model
        gpu = not embedded and work.options.engine not in ("simulated", "replay")
        await _forecast(connection, await validated(connection, file, given), gpu=gpu)
        if work.plan_only:
            return pb.RUN_STATE_SUCCEEDED
        create = connection.clients.coordinator.CreateExperiment
        created = await connection.call(create, api.CreateExperimentRequest(config=given), timeout=_GET_SECONDS)
        work.id = created.experiment.id
        err.print(Text(f"experiment {work.id[:12]}: {'exists; continuing' if created.existed else 'new'}"))
        try:
            await _follow(connection, work.id)
        except asyncio.CancelledError:
            await _pause_started(connection, work.id)
            raise
        found = await _write(connection, work.id, work.folder, file.description)
        return found.experiment.state


async def _forecast(connection: Connection, experiment: pb.Experiment, *, gpu: bool) -> None:
    """Print what the experiment will make, and what it may cost; `gpu`: with an estimate of GPU hours."""
    plans = await count_tokens(connection, experiment)
    lines = [*experiment_plan.sizes(experiment), *experiment_plan.tokens(experiment, plans)]
    if told := await experiment_plan.measured(connection, experiment):
        lines.append(told)
    if gpu:
        lines.append(experiment_plan.gpu_hours(experiment, plans))
    for line in lines:
        err.print(Text(printable(line)))


@contextlib.asynccontextmanager
async def _connected(work: _Work) -> AsyncIterator[Connection]:
    display = StartDisplay(err)
    needs = ("coordinator", "dataset", "inference") if work.where.explicit else SERVICES
    try:
        async with connected(
            work.where, needs, options=work.options, on_event=display, on_wait=display.wait
        ) as connection:
            display.close()
            yield connection
    finally:
        display.close()


async def _follow(connection: Connection, experiment: str) -> api.ExperimentStatus:
    """Print progress by cell until the experiment has ended or paused, and return its last status."""
    last = api.ExperimentStatus()
    told = ""
    request = api.WatchExperimentRequest(experiment=experiment)

    def open_stream() -> AsyncIterator[api.WatchExperimentResponse]:
        return connection.clients.stream(connection.clients.coordinator.WatchExperiment, request, retry=NO_RETRY)

    def on_message(message: api.WatchExperimentResponse) -> bool:
        nonlocal last, told
        last = message.experiment
        done = sum(cell.state in _FINISHED for cell in last.cells)
        waits = f"waiting for {last.waiting_for}" if last.waiting_for else last.message
        line = f"[{done}/{len(last.cells)}] {waits or state_name(last.state)}"
        if line != told:
            err.print(Text(printable(line)))
            told = line
        return last.state != pb.RUN_STATE_RUNNING

    await watch_to_its_end(open_stream, on_message, "coordinator", connection.addresses.coordinator)
    return last


async def _pause_started(connection: Connection, experiment: str) -> None:
    """Pause an experiment if its services stop with this command. Otherwise the next start would resume it."""
    if not connection.started:
        return
    clients = connection.clients
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CANCEL_SECONDS):
            request = api.PauseExperimentRequest(experiment=experiment)
            await clients.coordinator.PauseExperiment(request, timeout=CANCEL_SECONDS)
            watch = api.WatchExperimentRequest(experiment=experiment, interval_seconds=0.2)
            async for _ in clients.stream(clients.coordinator.WatchExperiment, watch, retry=NO_RETRY):
                pass


async def _write(
    connection: Connection, experiment: str, folder: Path | None, description: str
) -> api.GetExperimentResponse:
    """Print an experiment's results, and write them to a folder if there is one."""
    get = connection.clients.coordinator.GetExperiment
    found = await connection.call(get, api.GetExperimentRequest(experiment=experiment), timeout=_GET_SECONDS)
    for line in pages.summary(found):
        out.print(Text(printable(line)))
    if folder is not None:
        out.print(Text(f"results: {_save(found, folder, description)}"))
    return found


def _save(found: api.GetExperimentResponse, folder: Path, description: str) -> Path:
    """Write the page, the plot and the JSON, and return the page's path.

    Raises:
        Failure: The folder cannot be written to.
    """
    stem = file_stem(found.experiment.config.name)
    command = shlex.join(["codealign", *sys.argv[1:]])
    plot = pages.plot(found)
    text = pages.page(found, description=description, command=command, plot_file=f"{stem}.svg" if plot else "")
    texts = {".md": text, ".json": pages.as_json(found), ".svg": plot}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in texts.items():
            if content:
                (folder / f"{stem}{suffix}").write_text(content, encoding="utf-8")
    except OSError as error:
        raise Failure(f"--out: cannot write to {folder}: {error}") from None
    return folder / f"{stem}.md"


def file_stem(name: str) -> str:
    """Return the name of an experiment's files, without their endings. Different names have different files.

    A name that is no file's is changed, and digits that depend on it are added: "a/b" and "a-b" are two experiments.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    if plain == name:
        return plain
    digits = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain}-{digits}" if plain else digits


def _functions(file: ExperimentFile) -> str:
    """Return where the seed functions are taken from.

    Raises:
        Failure: It does not exist.
    """
    source = file.functions or presets.load(file.preset).source("seeds") or STDLIB
    if source != STDLIB and not Path(source).exists():
        raise Failure(f"{file.what}: functions: no such file or directory: {source}")
    return source


@app.command("ls")
@connects("coordinator")
def list_experiments(*, where: Target) -> None:
    """List the experiments, newest first."""

    async def work() -> list[api.ExperimentStatus]:
        async with services(where, *(("coordinator",) if where.explicit else ("coordinator", "dataset"))) as connection:
            request = api.ListExperimentsRequest()
            return list((await connection.call(connection.clients.coordinator.ListExperiments, request)).experiments)

    found = run_async(work())
    if not found:
        out.print("no experiments yet; start one with `codealign experiment PRESET`")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "name", "state", "arms", "seeds", "started", "message"):
        table.add_column(column)
    for status in found:
        cells = (
            status.id[:12],
            status.config.name,
            state_name(status.state),
            str(len(status.config.arms)),
            str(len(status.config.seeds)),
            status.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M"),
            status.message,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.print(whole(table))


@app.command("show")
@connects("coordinator")
def show(experiment: ExperimentArgument, folder: OutOption = None, *, where: Target) -> None:
    """Print an experiment's cells and results so far. With --out, also write them."""

    async def work() -> None:
        async with services(where, *(("coordinator",) if where.explicit else ("coordinator", "dataset"))) as connection:
            found = await _write(connection, experiment, folder, "")
            for cell in found.experiment.cells:
                rows = f", {cell.rows:,} rows" if cell.rows else ""
                run_id = f", run {cell.run[:12]}" if cell.run else ""
                state = state_name(cell.state) if cell.state else "not started"
                said = f": {cell.message}" if cell.message and cell.state != pb.RUN_STATE_SUCCEEDED else ""
                out.print(Text(printable(f"{cell.arm}, seed {cell.seed}: {state}{rows}{run_id}{said}")))

    run_async(work())


@app.command("pause")
@connects("coordinator")
def pause(experiment: ExperimentArgument, *, where: Target) -> None:
    """Pause an experiment with its current run or evaluation. A training continues."""

    async def change(connection: Connection) -> api.ExperimentStatus:
        request = api.PauseExperimentRequest(experiment=experiment)
        return (await connection.call(connection.clients.coordinator.PauseExperiment, request)).experiment

    _change(where, change)


@app.command("resume")
@connects("coordinator")
def resume(experiment: ExperimentArgument, *, where: Target) -> None:
    """Resume an experiment that was paused or cancelled, or try again what failed."""

    async def change(connection: Connection) -> api.ExperimentStatus:
        request = api.ResumeExperimentRequest(experiment=experiment)
        return (await connection.call(connection.clients.coordinator.ResumeExperiment, request)).experiment

    _change(where, change)


@app.command("cancel")
@connects("coordinator")
def cancel(experiment: ExperimentArgument, *, where: Target) -> None:
    """Cancel an experiment immediately, with its current run, training or evaluation. Finished work is kept."""

    async def change(connection: Connection) -> api.ExperimentStatus:
        request = api.CancelExperimentRequest(experiment=experiment)
        return (await connection.call(connection.clients.coordinator.CancelExperiment, request)).experiment

    _change(where, change)


def _change(where: Target, change: Callable[[Connection], Awaitable[api.ExperimentStatus]]) -> None:
    async def work() -> api.ExperimentStatus:
        async with services(where, "coordinator", start=False) as connection:
            return await change(connection)

    status = run_async(work())
    wanted = f", {state_name(status.wanted)} is requested" if status.wanted != status.state else ""
    out.print(Text(printable(f"experiment {status.id[:12]}: {state_name(status.state)}{wanted}")))
