"""Evaluate a model on benchmarks and show the progress."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.connection import Connection
from codealign.cli.following import CANCEL_SECONDS, watch_to_its_end
from codealign.cli.progress import PLAIN_SECONDS
from codealign.cli.terminal import printable
from codealign.common.clients import NO_RETRY

STYLES = ("base", "tuned")
"""Prompt styles: plain completion, and an instruction in the model's chat template."""


async def evaluate(
    connection: Connection,
    settings: pb.EvaluationSettings,
    console: Console,
    on_job: Callable[[str], None] = lambda _: None,
) -> list[api.Evaluation]:
    """Evaluate a model and show the progress.

    Cancelling this coroutine only stops watching, unless the services were started for this command: then the
    evaluation is cancelled as well.

    Args:
        connection: To the coordinator.
        settings: What to evaluate.
        console: Output console for the progress.
        on_job: Called with the evaluation's id once it is known.

    Returns:
        One evaluation for each benchmark, in the order of the request.

    Raises:
        Failure: The coordinator refuses the request, or is unreachable for too long.
    """
    found: dict[str, api.Evaluation] = {}
    request = api.EvaluateRequest(settings=settings)
    job = ""

    def open_stream() -> AsyncIterator[api.EvaluateResponse]:
        return connection.clients.stream(connection.clients.coordinator.Evaluate, request, retry=NO_RETRY)

    with EvaluationDisplay(console, settings.prompt_style) as display:

        def on_message(message: api.EvaluateResponse) -> bool:
            nonlocal job
            if message.job != job:
                job = message.job
                on_job(job)
            display.update(message)
            if message.HasField("evaluation"):
                found[message.benchmark] = message.evaluation
            return len(found) == len(settings.benchmarks)

        try:
            await watch_to_its_end(open_stream, on_message, "coordinator", connection.addresses.coordinator)
        except asyncio.CancelledError:
            if job and connection.started:
                await _cancel(connection, job)
            raise
    return [found[benchmark] for benchmark in settings.benchmarks]


async def _cancel(connection: Connection, job: str) -> None:
    """Cancel the evaluation. Otherwise the next command that starts these services would resume it."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CANCEL_SECONDS):
            request = api.CancelEvaluationRequest(evaluation=job)
            await connection.clients.coordinator.CancelEvaluation(request, timeout=CANCEL_SECONDS)


class EvaluationDisplay:
    """Progress of each benchmark: a bar on a terminal, periodic lines elsewhere.

    Args:
        console: Output console.
        what: What is evaluated, in one word.
    """

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        columns = (TextColumn(f"evaluating ({what})"), BarColumn(), TextColumn("{task.description}"))
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._last_time = float("-inf")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, message: api.EvaluateResponse) -> None:
        """Show a message."""
        reused = f", {message.problems_reused:,} of them reused" if message.problems_reused else ""
        rate = f", pass@1 {message.pass_at_k[1]:.1%}" if 1 in message.pass_at_k else ""
        waits = f", waiting for {message.waiting_for}" if message.waiting_for else ""
        counted = f"{message.problems_done:,}/{message.problems_total:,} problems"
        line = printable(f"{message.benchmark} {counted}{reused}{rate}{waits}")
        if self._console.is_terminal:
            if message.benchmark not in self._tasks:
                self._tasks[message.benchmark] = self._bars.add_task("", total=None)
            task = self._tasks[message.benchmark]
            self._bars.update(task, total=message.problems_total, completed=message.problems_done, description=line)
            return
        now = time.monotonic()
        if now - self._last_time >= PLAIN_SECONDS or message.HasField("evaluation"):
            self._console.print(Text(f"evaluating ({self._what}) {line}"))
            self._last_time = now
