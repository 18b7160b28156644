"""Submit a training and follow it until it ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from codealign.api.training.v1 import training_pb2 as api
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.following import watch_to_its_end
from codealign.cli.progress import PLAIN_SECONDS
from codealign.cli.terminal import count, duration, printable, size
from codealign.common.clients import NO_RETRY

ENDED = (api.TRAINING_STATE_SUCCEEDED, api.TRAINING_STATE_FAILED, api.TRAINING_STATE_CANCELLED)
_SUBMIT_SECONDS = 600.0


async def train(connection: Connection, spec: api.TrainingSpec, console: Console) -> api.Training:
    """Submit a training and follow it until it succeeds.

    Raises:
        Failure: The training was refused, or did not succeed.
    """
    submitted = await submit(connection, spec, console)
    if submitted.state == api.TRAINING_STATE_SUCCEEDED:
        return submitted
    return succeeded(await follow_training(connection, submitted.id, console))


async def submit(connection: Connection, spec: api.TrainingSpec, console: Console) -> api.Training:
    """Submit a training, and print whether it existed before."""
    request = api.SubmitTrainingRequest(spec=spec)
    method = connection.clients.training.SubmitTraining
    response = await connection.call(method, request, timeout=_SUBMIT_SECONDS)
    training = response.training
    if not response.existed:
        said = "new"
    elif training.state == api.TRAINING_STATE_SUCCEEDED:
        said = "already done with these settings on this data"
    else:
        said = f"resuming from step {training.checkpoint_step:,}"
    console.print(Text(printable(f"training {training.id[:12]}: {said}{_estimate(training)}")))
    return training


def succeeded(training: api.Training) -> api.Training:
    """Return the training if it has succeeded.

    Raises:
        Failure: The training has not succeeded.
    """
    if training.state != api.TRAINING_STATE_SUCCEEDED:
        raise Failure(f"training {training.id[:12]} {state_name(training.state)}: {printable(training.message)}")
    return training


async def follow_training(connection: Connection, training_id: str, console: Console) -> api.Training:
    """Show a training's progress until it ends, and return its final state.

    Raises:
        Failure: The service refuses the request, or is unreachable for too long.
    """
    last = api.Training()
    request = api.WatchTrainingRequest(id=training_id)

    def open_stream() -> AsyncIterator[api.WatchTrainingResponse]:
        return connection.clients.stream(connection.clients.training.WatchTraining, request, retry=NO_RETRY)

    with TrainingDisplay(console) as display:

        def on_message(message: api.WatchTrainingResponse) -> bool:
            nonlocal last
            last = message.training
            display.update(last)
            return last.state in ENDED

        await watch_to_its_end(open_stream, on_message, "training", connection.addresses.training)
    return last


class TrainingDisplay:
    """Progress of a training: a bar on a terminal, periodic lines elsewhere.

    Args:
        console: Output console.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None)
        self._notes: set[str] = set()
        self._last_line, self._last_time = "", float("-inf")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, training: api.Training) -> None:
        """Show a training's state, and each of its notes once."""
        for note in training.notes:
            if note not in self._notes:
                self._notes.add(note)
                self._console.print(Text(f"note: {printable(note)}", style="yellow"))
        line = training_line(training)
        if self._console.is_terminal:
            total = training.total_steps or None
            self._bar.update(self._task, total=total, completed=training.step, description=line)
            return
        now = time.monotonic()
        if line != self._last_line and (now - self._last_time >= PLAIN_SECONDS or training.state in ENDED):
            self._console.print(Text(f"training {line}"))
            self._last_line, self._last_time = line, now


def state_name(state: api.TrainingState.ValueType) -> str:
    """Return a training's state in lower case: "running"."""
    return api.TrainingState.Name(state).removeprefix("TRAINING_STATE_").lower()


def training_line(training: api.Training) -> str:
    """Return a training's state in one line."""
    parts = [state_name(training.state)]
    if training.message and training.state != api.TRAINING_STATE_SUCCEEDED:
        parts.append(printable(training.message))
    if training.step:
        parts.append(f"step {training.step:,}/{training.total_steps:,}")
        parts.append(f"loss {training.loss:.4f}")
        parts.append(f"learning rate {training.learning_rate:.2e}")
    if training.tokens_per_second:
        parts.append(f"{training.tokens_per_second:,.0f} tokens/s")
    if training.HasField("seconds_left") and training.state == api.TRAINING_STATE_RUNNING:
        parts.append(f"{duration(training.seconds_left)} left")
    return ", ".join(parts)


def describe(training: api.Training) -> list[str]:
    """Return the result of a training, in lines."""
    cut = f", {training.truncated_rows:,} of them truncated" if training.truncated_rows else ""
    lines = [f"{count(training.rows, 'row')}{cut}; {count(training.step, 'step')}; last loss {training.loss:.4f}"]
    if training.artifact_url:
        lines.append(training.artifact_url)
    return [printable(line) for line in lines]


def _estimate(training: api.Training) -> str:
    if not training.HasField("estimate"):
        return ""
    need = training.estimate
    return (
        f"; needs about {size(need.memory_bytes)} of {size(need.memory_available_bytes)} available memory and "
        f"{size(need.disk_bytes)} of {size(need.disk_available_bytes)} available disk space"
    )
