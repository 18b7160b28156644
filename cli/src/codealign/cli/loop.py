"""What follows the data: evaluation of the base model, training, evaluation of the tuned model.

The coordinator executes these steps as a Loop record. This module defines the settings that a user can choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from rich.console import Console
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure, rpc_failure
from codealign.cli.terminal import printable

UNTIL = ("data", "training", "evaluation")
"""Where a run may stop."""
BENCHMARKS = ("humaneval+", "mbpp+")
"""Benchmarks of an evaluation that names none."""


def evaluation_settings(values: Mapping[str, Any]) -> pb.EvaluationSettings:
    """Return evaluation settings with the default benchmarks and one sample of each problem unless given.

    Args:
        values: Fields of EvaluationSettings by name.
    """
    return json_format.ParseDict({"benchmarks": list(BENCHMARKS), "samples": 1, **values}, pb.EvaluationSettings())


@dataclass(frozen=True)
class LoopChoices:
    """How far a run goes, and the settings of its training and evaluations."""

    until: str
    """One of UNTIL."""
    training: training.TrainingSpec
    """Model, revision and dataset are left to the coordinator."""
    evaluations: tuple[pb.EvaluationSettings, ...]
    """Model and prompt style are left to the coordinator."""
    benchmarks_named: bool = False
    """Whether the user named the benchmarks, gave their files or wants rounds. Then missing benchmarks are an error."""

    @property
    def trains(self) -> bool:
        """Whether a model is tuned on the published version."""
        return self.until != "data"

    @property
    def evaluates(self) -> bool:
        """Whether the base model and the tuned model are evaluated."""
        return self.until == "evaluation"

    def check(self) -> None:
        """Check the options before anything is started.

        Raises:
            Failure: An option is invalid.
        """
        if self.until not in UNTIL:
            raise Failure(f"--until: unknown value {self.until!r}; must be one of {', '.join(UNTIL)}")

    def with_rounds(self) -> LoopChoices:
        """Return the choices for a series of rounds, which needs evaluations.

        Raises:
            Failure: They end before the evaluation.
        """
        if not self.evaluates:
            raise Failure(f"--until {self.until}: a series of rounds needs --until evaluation, to notice a worse round")
        return replace(self, benchmarks_named=True)

    def loop(self, *, one_model: bool) -> pb.Loop | None:
        """Return the loop for CreateRun, or None if the run ends with its data.

        Args:
            one_model: Unload every other model before the tuned model is loaded.
        """
        if not self.trains:
            return None
        evaluations = self.evaluations if self.evaluates else ()
        return pb.Loop(training=self.training, evaluations=evaluations, one_model=one_model)


async def check_benchmarks(connection: Connection, choices: LoopChoices, console: Console) -> LoopChoices:
    """Detect benchmarks that cannot be read before hours of work lead to them.

    Args:
        connection: To the coordinator.
        choices: How far to go.
        console: Receives a note if the evaluation is skipped.

    Returns:
        The choices, without the evaluation if a benchmark that the user did not name is unavailable.

    Raises:
        Failure: A benchmark that the user named is unavailable, or its file is damaged.
    """
    if not choices.evaluates:
        return choices
    clients = connection.clients
    try:
        for evaluation in choices.evaluations:
            request = api.EvaluateRequest(settings=evaluation, validate_only=True)
            request.settings.prompt_style = "base"
            async for _ in clients.stream(clients.coordinator.Evaluate, request):
                pass
    except grpc.aio.AioRpcError as error:
        if choices.benchmarks_named or error.code() is not grpc.StatusCode.NOT_FOUND:
            raise rpc_failure(error, "coordinator", connection.addresses.coordinator) from error
        note = (
            "note: skipping the evaluation, the run ends after training: "
            f"{printable(error.details() or '').rstrip('.')}. To evaluate, pass --benchmarks DIRECTORY "
            "(make run: BENCHMARKS=DIRECTORY)"
        )
        console.print(Text(note, style="yellow"))
        return replace(choices, until="training")
    return choices


def report_page(reports: Path, run_id: str) -> Path:
    """Return the path of a run's report page."""
    return reports / f"{run_id[:12]}.html"
