"""One task per sample, for engines that generate each sample separately."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from codealign.common.errors import Unavailable
from codealign.inference import metrics
from codealign.inference.engines.base import Completion, GenerationRequest, Load, Sample
from codealign.inference.engines.queueing import WaitingBound

Write = Callable[[Sample, float], Awaitable[Completion]]
"""Generates one sample; the second argument is the request's arrival time as `time.perf_counter()`."""


class Fanout:
    """Runs a request's samples concurrently, counts them, and cancels them when the engine closes.

    Args:
        slots: Number of samples that the engine runs at once.
        max_waiting: Maximum number of further samples that wait.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        self._slots = slots
        self._bound = WaitingBound(max_waiting)
        self._tasks: set[asyncio.Task[Completion]] = set()
        self._closing = False
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0

    def require_room(self, request: GenerationRequest) -> None:
        """Refuse a request that cannot be queued.

        Raises:
            ResourceExhausted: Too many samples are waiting.
            Unavailable: The engine is stopping.
        """
        if self._closing:
            raise Unavailable("the engine is stopping: try another replica")
        self._bound.require_room(self.load().waiting, len(request.samples))

    async def run(self, request: GenerationRequest, write: Write, arrival: float) -> AsyncGenerator[Completion]:
        """Yield completions as they finish; the first error cancels the others.

        Raises:
            Unavailable: The engine was closed.
        """
        tasks = [asyncio.ensure_future(self._one(write, sample, arrival)) for sample in request.samples]
        self._tasks.update(tasks)
        try:
            for finished in asyncio.as_completed(tasks):
                try:
                    completion = await finished
                except asyncio.CancelledError:
                    # A task that is cancelled before its first step cannot convert the error itself.
                    task = asyncio.current_task()
                    if self._closing and not (task and task.cancelling()):
                        raise _stopped() from None
                    raise
                yield completion
        finally:
            await _cancelled(tasks)
            self._tasks.difference_update(tasks)

    def load(self) -> Load:
        """Return the current load; unfinished samples beyond the slots count as waiting."""
        unfinished = sum(not task.done() for task in self._tasks)
        return Load(
            running=min(unfinished, self._slots),
            waiting=max(0, unfinished - self._slots),
            slots=self._slots,
            prompt_tokens=self._prompt_tokens,
            cached_prompt_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
        )

    def reopen(self) -> None:
        """Accept samples again after `close`."""
        self._closing = False

    async def close(self) -> None:
        """Cancel samples in flight with `Unavailable` and refuse new ones."""
        self._closing = True
        await _cancelled(list(self._tasks))

    async def _one(self, write: Write, sample: Sample, arrival: float) -> Completion:
        try:
            completion = await write(sample, arrival)
        except asyncio.CancelledError:
            if self._closing:
                raise _stopped() from None
            raise
        self._bound.finished_one()
        self._prompt_tokens += completion.prompt_tokens
        self._cached_tokens += completion.cached_prompt_tokens or 0
        self._generated_tokens += completion.generated_tokens
        metrics.count(completion)
        metrics.COMPLETION_SECONDS.observe(time.perf_counter() - arrival)
        return completion


def _stopped() -> Unavailable:
    return Unavailable("the engine was stopped: retry the request")


async def _cancelled(tasks: list[asyncio.Task[Completion]]) -> None:
    """Cancel the tasks and wait until they have cleaned up."""
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
