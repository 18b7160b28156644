"""What follows the data: the base model evaluated, a model tuned on the version, that one evaluated, and the page.

The coordinator carries it out (a Loop record); here is what a person may choose of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
from rich.console import Console
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure, rpc_failure
from codealign.cli.terminal import printable
from codealign.cli.tuning import TuningChoices, training_spec

UNTIL = ("data", "training", "evaluation")
"""Where a run may stop."""
BENCHMARKS = ("humaneval+", "mbpp+")


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

    def settings(self, model: str = "", revision: str = "", style: str = "") -> pb.EvaluationSettings:
        """The settings for a model. In a loop the coordinator knows model and style."""
        return pb.EvaluationSettings(
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

    def loop(self, *, one_model: bool) -> pb.Loop | None:
        """As CreateRun takes it; None where the run ends with its data.

        Args:
            one_model: Every other model is unloaded before the tuned one is loaded.
        """
        if not self.trains:
            return None
        loop = pb.Loop(training=training_spec(self.tuning, "", "", ""), one_model=one_model)
        if self.evaluates:
            loop.evaluations.extend(evaluation.settings() for evaluation in self.evaluations)
        return loop


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
            request = api.EvaluateRequest(settings=evaluation.settings(style="base"), validate_only=True)
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


def report_page(reports: Path, run_id: str) -> Path:
    """Where a run's page goes."""
    return reports / f"{run_id[:12]}.html"
