"""`codealign train` and `codealign trainings`: fine-tune models on published versions."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.training.v1 import training_pb2 as api
from codealign.cli.connection import Connection, Target
from codealign.cli.failures import EXIT_FAILURE, Failure
from codealign.cli.interrupts import run_async
from codealign.cli.options import (
    connects,
    services,
)
from codealign.cli.run_file import largest
from codealign.cli.stack import model_source
from codealign.cli.terminal import err, out, printable, whole
from codealign.cli.tuning import (
    describe,
    follow_training,
    state_name,
    submit,
    succeeded,
    train,
    training_line,
)

app = typer.Typer(no_args_is_help=True, help="List, watch and cancel trainings.")

TrainingArgument = Annotated[str, typer.Argument(metavar="TRAINING", help="Training id, or its first digits.")]


@connects("training", "dataset")
def train_command(
    model: Annotated[str, typer.Option("--model", help="Base model: a hub id, a directory or an artifact URL.")],
    version: Annotated[
        str,
        typer.Argument(
            metavar="[VERSION|URL]", help="Published version, or URL of Parquet files. Default: the newest version."
        ),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the training.")] = "",
    learning_rate: Annotated[
        float,
        typer.Option(
            "--learning-rate", min=0, show_default=False, help="Peak learning rate. 0: 1e-5, as in the paper."
        ),
    ] = 0.0,
    epochs: Annotated[
        float, typer.Option("--epochs", min=0, show_default=False, help="Passes over the data. 0: 4.")
    ] = 0.0,
    max_steps: Annotated[
        int,
        typer.Option(
            "--max-steps",
            min=0,
            max=largest(api.TrainingSpec, "max_steps"),
            show_default=False,
            help="Maximum optimizer steps. 0: no limit.",
        ),
    ] = 0,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=0,
            max=largest(api.TrainingSpec, "batch_size"),
            show_default=False,
            help="Rows per optimizer step. 0: 64.",
        ),
    ] = 0,
    rows: Annotated[
        int,
        typer.Option(
            "--rows",
            min=0,
            max=largest(api.TrainingSpec, "rows"),
            show_default=False,
            help="Rows to train on, drawn by the seed. 0: all.",
        ),
    ] = 0,
    max_length: Annotated[
        int,
        typer.Option(
            "--max-length",
            min=0,
            max=largest(api.TrainingSpec, "max_length"),
            show_default=False,
            help="Maximum tokens of a row; longer rows are truncated. 0: 1,280.",
        ),
    ] = 0,
    warmup: Annotated[
        float | None, typer.Option("--warmup", min=0, max=1, help="Warmup, as a share of the steps. Default: 0.05.")
    ] = None,
    schedule: Annotated[
        str, typer.Option("--schedule", help="Learning rate schedule: linear (the default), cosine or constant.")
    ] = "",
    optimizer: Annotated[str, typer.Option("--optimizer", help="Optimizer: adafactor (the default) or adamw.")] = "",
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32 or bfloat16. Default: bfloat16 on a GPU, float32 on a CPU.")
    ] = "",
    lora_rank: Annotated[
        int,
        typer.Option(
            "--lora-rank",
            min=0,
            max=largest(api.Lora, "rank"),
            show_default=False,
            help="LoRA rank. 0: full fine-tuning.",
        ),
    ] = 0,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Recompute activations in the backward pass to save memory."),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            max=largest(api.TrainingSpec, "workers"),
            show_default=False,
            help="Worker processes, one per GPU. 0: 1.",
        ),
    ] = 0,
    sharding: Annotated[
        str, typer.Option("--sharding", help="Sharding across workers: fsdp (the default) or ddp.")
    ] = "",
    checkpoint_steps: Annotated[
        int,
        typer.Option(
            "--checkpoint-steps",
            min=0,
            max=largest(api.TrainingSpec, "checkpoint_steps"),
            show_default=False,
            help="Steps between checkpoints. 0: 100.",
        ),
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            min=-largest(api.TrainingSpec, "seed"),
            max=largest(api.TrainingSpec, "seed"),
            help="Random seed of the training.",
        ),
    ] = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the training until it ends.")] = True,
    *,
    where: Target,
) -> None:
    """Fine-tune a model on a published version. To resume an interrupted training, repeat the same command."""
    spec = api.TrainingSpec(
        name=name,
        model=model_source(model),
        dataset=version,
        learning_rate=learning_rate,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        rows=rows,
        max_length=max_length,
        warmup_ratio=warmup,
        schedule=schedule,
        optimizer=optimizer,
        dtype=dtype,
        lora=api.Lora(rank=lora_rank) if lora_rank else None,
        gradient_checkpointing=gradient_checkpointing,
        workers=workers,
        sharding=sharding,
        checkpoint_steps=checkpoint_steps,
        seed=seed,
    )

    async def work() -> api.Training:
        async with services(where, "dataset", "training") as connection:
            if connection.started and not wait:
                raise Failure(
                    "--no-wait needs running services; this command started its own. Run `codealign up` first"
                )
            spec.dataset = spec.dataset or await _newest(connection)
            return await (train if wait else submit)(connection, spec, err)

    done = run_async(work(), lambda: "stopped; the last checkpoint is kept. Run the same command to continue from it")
    out.print(Text(f"training {done.id}: {state_name(done.state)}"))
    if done.state == api.TRAINING_STATE_SUCCEEDED:
        for line in describe(done):
            out.print(Text(f"  {line}"))


@app.command("ls")
@connects("training")
def list_trainings(
    *,
    where: Target,
) -> None:
    """List the trainings, newest first."""

    async def work() -> list[api.Training]:
        async with services(where, "training", start=False) as connection:
            listed = await connection.call(connection.clients.training.ListTrainings, api.ListTrainingsRequest())
            return list(listed.trainings)

    found = run_async(work())
    if not found:
        out.print("no trainings yet: codealign train")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("training", "name", "model", "data", "state"):
        table.add_column(column)
    for item in found:
        cells = (item.id[:12], item.spec.name, item.spec.model, item.spec.dataset, training_line(item))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.print(whole(table))


@app.command("watch")
@connects("training")
def watch(
    training_id: TrainingArgument,
    *,
    where: Target,
) -> None:
    """Show a training's progress until it ends. Ctrl-C stops watching; the training continues."""

    async def work() -> api.Training:
        async with services(where, "training", start=False) as connection:
            return await follow_training(connection, await _find(connection, training_id), err)

    done = run_async(work(), lambda: "stopped watching; the training continues")
    out.print(Text(f"training {done.id}: {training_line(done)}"))
    succeeded(done)


@app.command("cancel")
@connects("training")
def cancel(
    training_id: TrainingArgument,
    *,
    where: Target,
) -> None:
    """Cancel a training. `codealign train` with the same options resumes from its last checkpoint."""

    async def work() -> api.Training:
        async with services(where, "training", start=False) as connection:
            request = api.CancelTrainingRequest(id=await _find(connection, training_id))
            return (await connection.call(connection.clients.training.CancelTraining, request)).training

    done = run_async(work())
    out.print(Text(f"training {done.id}: {training_line(done)}"))
    if done.state != api.TRAINING_STATE_CANCELLED:
        raise typer.Exit(EXIT_FAILURE)


async def _find(connection: Connection, prefix: str) -> str:
    """Return the id of the training whose id starts with `prefix`."""
    listed = await connection.call(connection.clients.training.ListTrainings, api.ListTrainingsRequest())
    found = [item.id for item in listed.trainings if item.id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    what = "no training" if not found else f"{len(found)} trainings"
    raise Failure(f"{what} with an id that starts with {prefix!r}; see `codealign trainings ls`")


async def _newest(connection: Connection) -> str:
    listed = await connection.call(connection.clients.dataset.ListVersions, ds.ListVersionsRequest())
    if not listed.versions:
        raise Failure("no published version to train on yet: codealign run")
    return listed.versions[0].name
