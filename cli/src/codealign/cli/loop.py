"""What follows the data: the base model evaluated, a model tuned on the version, that one evaluated, and the page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
from rich.console import Console
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.connection import Connection
from codealign.cli.evaluating import evaluate
from codealign.cli.failures import Failure, rpc_failure
from codealign.cli.terminal import printable
from codealign.cli.tuning import TuningChoices, describe, train, training_spec

UNTIL = ("data", "training", "evaluation")
"""Where a run may stop."""
BENCHMARKS = ("humaneval+", "mbpp+")
LOAD_SECONDS = 3600.0


@dataclass(frozen=True)
class EvaluationChoices:
    """What a person may choose about an evaluation."""

    benchmarks: tuple[str, ...] = BENCHMARKS
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 0
    """New tokens of a solution. 0: the coordinator's default."""
    limit: int = 0
    """Problems of each benchmark. 0: all."""
    seed: int = 0

    def request(self, model: str, revision: str, style: str) -> api.EvaluateRequest:
        """The request for a model."""
        return api.EvaluateRequest(
            model=pb.ModelChoice(model=model, revision=revision),
            benchmarks=self.benchmarks,
            samples=self.samples,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            prompt_style=style,
            seed=self.seed,
            limit=self.limit,
        )


@dataclass(frozen=True)
class LoopChoices:
    """How far a run goes, and how."""

    until: str = "data"
    """One of UNTIL."""
    tuning: TuningChoices = field(default_factory=TuningChoices)
    evaluations: tuple[EvaluationChoices, ...] = (EvaluationChoices(),)
    benchmarks_named: bool = False
    """A person named the benchmarks or gave their files: without them nothing goes on."""

    @property
    def trains(self) -> bool:
        """A model is tuned on the version."""
        return self.until != "data"

    @property
    def evaluates(self) -> bool:
        """The models before and after are evaluated."""
        return self.until == "evaluation"

    def check(self) -> None:
        """Find what cannot work before anything is started.

        Raises:
            Failure: Names the option.
        """
        if self.until not in UNTIL:
            raise Failure(f"--until: unknown stage {self.until!r}; there are {', '.join(UNTIL)}")


async def check_benchmarks(connection: Connection, choices: LoopChoices, console: Console) -> LoopChoices:
    """Find a benchmark that cannot be read before the hours that lead to it.

    Args:
        connection: To the coordinator.
        choices: How far to go.
        console: Told of an evaluation that is left out.

    Returns:
        The choices to go on with: without the evaluation where a benchmark cannot be had that no person named.

    Raises:
        Failure: Says which, and what to do.
    """
    if not choices.evaluates:
        return choices
    clients = connection.clients
    try:
        for evaluation in choices.evaluations:
            request = evaluation.request("", "", "base")
            request.validate_only = True
            async for _ in clients.stream(clients.coordinator.Evaluate, request):
                pass
    except grpc.aio.AioRpcError as error:
        if choices.benchmarks_named or error.code() is not grpc.StatusCode.NOT_FOUND:
            raise rpc_failure(error, "coordinator", connection.addresses.coordinator) from error
        note = (
            f"note: no evaluation, the run ends with the training: {printable(error.details() or '').rstrip('.')}. "
            "To have it, give --benchmarks FOLDER (make run: BENCHMARKS=FOLDER)"
        )
        console.print(Text(note, style="yellow"))
        return replace(choices, until="training")
    return choices


async def close_loop(connection: Connection, run: api.RunStatus, choices: LoopChoices, console: Console) -> None:
    """Do what follows a run's version; what was done before is not done again.

    Args:
        connection: To every service.
        run: The run, which has succeeded.
        choices: How far to go.
        console: Where progress is shown.

    Raises:
        Failure: There is nothing to train on, or a step failed.
    """
    if not choices.trains:
        return
    if not run.version:
        raise Failure("no rows were kept: there is nothing to train on; try more seeds (--n)")
    base = await _run_model(connection, run)
    if choices.evaluates:
        for evaluation in choices.evaluations:
            await evaluate(connection, evaluation.request(base.name, base.revision, "base"), console)
    spec = training_spec(choices.tuning, base.source, base.revision, run.version)
    tuned = await train(connection, spec, console)
    for line in describe(tuned):
        console.print(Text(f"  {line}"))
    if choices.evaluates:
        model = await load_checkpoint(connection, tuned, base, unload=connection.started)
        for evaluation in choices.evaluations:
            await evaluate(connection, evaluation.request(model.name, model.revision, "tuned"), console)


async def _run_model(connection: Connection, run: api.RunStatus) -> inf.Model:
    """The run's model, as the inference service has it."""
    listed = await connection.call(connection.clients.inference.ListModels, inf.ListModelsRequest())
    for model in listed.models:
        if run.config.model.revision in ("", model.revision):
            return model
    names = ", ".join(model.name for model in listed.models) or "none"
    raise Failure(
        f"the run's model {run.config.model.model} (revision {run.config.model.revision[:12]}) is not loaded at "
        f"{connection.addresses.inference}; loaded: {names}"
    )


async def load_checkpoint(
    connection: Connection, tuned: training.Training, base: inf.Model, *, unload: bool
) -> inf.Model:
    """Load a trained model under the name of its training.

    Args:
        connection: To the inference and dataset services.
        tuned: A training that has succeeded.
        base: The model before.
        unload: Unload every other model first, since a small machine does not hold two.
    """
    inference = connection.clients.inference
    record = await connection.call(connection.clients.dataset.Get, ds.GetRequest(ids=[tuned.checkpoint_id]))
    if not record.records:
        raise Failure(
            f"the store has no checkpoint {tuned.checkpoint_id}, which training {tuned.id} is said to have made"
        )
    checkpoint = record.records[0].checkpoint
    listed = await connection.call(inference.ListModels, inf.ListModelsRequest())
    for model in listed.models:
        if model.revision == checkpoint.revision:
            return model
    if unload:
        for model in listed.models:
            await connection.call(inference.UnloadModel, inf.UnloadModelRequest(name=model.name), timeout=LOAD_SECONDS)
    request = inf.LoadModelRequest(
        name=f"{base.name}-{tuned.id[:8]}", source=checkpoint.artifact_url, expected_revision=checkpoint.revision
    )
    return (await connection.call(inference.LoadModel, request, timeout=LOAD_SECONDS)).model


def report_page(reports: Path, run_id: str) -> Path:
    """Where a run's page goes."""
    return reports / f"{run_id[:12]}.html"
