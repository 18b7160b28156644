"""`codealign eval`: evaluate a model on benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.cli.connection import Connection, Target
from codealign.cli.evaluating import STYLES, evaluate
from codealign.cli.failures import Failure
from codealign.cli.interrupts import run_async
from codealign.cli.loop import BENCHMARKS
from codealign.cli.options import (
    BenchmarksOption,
    EngineOption,
    ModelOption,
    RecordingOption,
    connects,
    services,
)
from codealign.cli.progress import state_name
from codealign.cli.report.terminal import evaluation_table
from codealign.cli.run_config import choose_model
from codealign.cli.run_file import largest
from codealign.cli.stack import DATA_SERVICES, Options
from codealign.cli.terminal import count, err, out, printable


@connects("coordinator", "inference", "dataset")
def eval_command(
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", help="Benchmark to evaluate on (repeatable). Default: humaneval+ and mbpp+."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=1,
            max=largest(pb.EvaluationSettings, "samples"),
            help="Samples of each problem. More than one needs a temperature.",
        ),
    ] = 1,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0, max=2, show_default=False, help="Sampling temperature. 0: greedy decoding."
        ),
    ] = 0.0,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens",
            min=0,
            max=largest(pb.EvaluationSettings, "max_tokens"),
            show_default=False,
            help="Maximum new tokens. 0: the coordinator's default.",
        ),
    ] = 0,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            min=0,
            max=largest(pb.EvaluationSettings, "limit"),
            show_default=False,
            help="Number of problems of each benchmark. 0: all.",
        ),
    ] = 0,
    cancel: Annotated[
        str,
        typer.Option(
            "--cancel", metavar="ID", help="Cancel this evaluation instead of starting one. Results so far are kept."
        ),
    ] = "",
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            help="Prompt style. base: plain completion; tuned: an instruction. Default: tuned for models that "
            "CodeAlign trained.",
        ),
    ] = "",
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            min=-largest(pb.EvaluationSettings, "seed"),
            max=largest(pb.EvaluationSettings, "seed"),
            help="Random seed of the samples.",
        ),
    ] = 0,
    samples_file: Annotated[
        Path | None, typer.Option("--samples-file", help="Write the solutions to this file in EvalPlus format.")
    ] = None,
    model: ModelOption = "",
    engine: EngineOption = "",
    recording: RecordingOption = None,
    benchmarks: BenchmarksOption = None,
    *,
    where: Target,
) -> None:
    """Evaluate a model on benchmarks. Results that exist already are reused.

    The inference service writes solutions, and the sandbox judges them. If the services were already running, Ctrl-C
    only stops watching: the evaluation continues, and the same command watches it again.
    """
    if prompt not in ("", *STYLES):
        raise Failure(f"--prompt: unknown style {prompt!r}; valid: {', '.join(STYLES)}")
    if samples_file is not None and not samples_file.resolve().parent.is_dir():
        raise Failure(f"--samples-file: no such directory: {samples_file.resolve().parent}")
    options = Options(model, engine, recording, None, benchmarks)
    options.check()
    settings = pb.EvaluationSettings(
        benchmarks=benchmark or BENCHMARKS,
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        limit=limit,
        seed=seed,
    )
    if cancel:
        _cancel(where, cancel)
        return
    needs = ("coordinator", "inference", "dataset") if where.explicit else DATA_SERVICES
    watched = _Watched()

    async def work() -> tuple[list[api.Evaluation], list[str]]:
        async with services(where, *needs, options=options) as connection:
            watched.outlives_us = not connection.started
            name = await choose_model(connection, options)
            found = await connection.call(connection.clients.inference.GetModel, inf.GetModelRequest(name=name))
            settings.model.CopyFrom(pb.ModelChoice(model=name, revision=found.model.revision))
            settings.prompt_style = prompt or await _style(connection, found.model.revision)
            evaluations = await evaluate(connection, settings, err, watched.on_job)
            lines = await _samples(connection, evaluations) if samples_file is not None else []
            return evaluations, lines

    evaluations, lines = run_async(work(), watched.interrupted)
    out.print(evaluation_table(evaluations))
    if samples_file is not None:
        try:
            samples_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise Failure(f"--samples-file: cannot write {samples_file} ({error.strerror})") from None
        out.print(Text(f"{count(len(lines), 'solution')} written to {samples_file}"))


@dataclass
class _Watched:
    """The evaluation that the command watches."""

    job: str = ""
    outlives_us: bool = False
    """Whether the services were running before this command."""

    def on_job(self, job: str) -> None:
        """Record the evaluation's id."""
        self.job = job

    def interrupted(self) -> str:
        """Return the message for a user who stops watching."""
        if self.job and self.outlives_us:
            return (
                f"stopped watching; evaluation {self.job[:12]} continues in the running services. Run the same command "
                f"to watch it again, or codealign eval --cancel {self.job[:12]} to stop it"
            )
        return "stopped; results so far are kept. Run the same command to continue"


def _cancel(where: Target, evaluation: str) -> None:
    async def work() -> api.EvaluationStatus:
        async with services(where, "coordinator", start=False) as connection:
            request = api.CancelEvaluationRequest(evaluation=evaluation)
            cancelled = await connection.call(connection.clients.coordinator.CancelEvaluation, request)
            return cancelled.evaluation

    status = run_async(work())
    message = f": {status.message}" if status.message else ""
    out.print(Text(printable(f"evaluation {status.id[:12]}: {state_name(status.state)}{message}")))


async def _style(connection: Connection, revision: str) -> str:
    """Return a model's prompt style: `tuned` for models that CodeAlign trained, otherwise `base`."""
    async for record in connection.scan(ds.ScanRequest(kind=pb.KIND_CHECKPOINT)):
        if record.checkpoint.revision == revision:
            return "tuned"
    return "base"


async def _samples(connection: Connection, evaluations: Sequence[api.Evaluation]) -> list[str]:
    """Return every solution as a line in EvalPlus' samples format."""
    lines = []
    for evaluation in evaluations:
        request = ds.ScanRequest(kind=pb.KIND_EVALUATION_RESULT, stage_config_id=evaluation.id)
        found = [
            (record.evaluation_result.problem_id, record.attempt, record.evaluation_result.solution)
            async for record in connection.scan(request)
        ]
        lines += [json.dumps({"task_id": task, "solution": text}) for task, _, text in sorted(found)]
    return lines
