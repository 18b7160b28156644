"""Run a command's coroutine. The first Ctrl-C or SIGTERM cancels it, so that open resources are closed in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from codealign.cli.failures import EXIT_INTERRUPTED, EXIT_TERMINATED, Interrupted

T = TypeVar("T")

_EXIT_CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}


def run_async(work: Coroutine[Any, Any, T], on_interrupt: Callable[[], str] = lambda: "stopped") -> T:
    """Run a coroutine to its end.

    A second signal cancels again, which kills services instead of stopping them gracefully.

    Args:
        work: The coroutine.
        on_interrupt: Returns the message for a user who interrupts the command.

    Raises:
        Interrupted: A signal interrupted the command.
    """
    received: list[signal.Signals] = []

    async def watched() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def on_signal(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        for number in _EXIT_CODES:
            loop.add_signal_handler(number, on_signal, number)
        return await work

    try:
        return asyncio.run(watched())
    except (asyncio.CancelledError, KeyboardInterrupt):
        number = received[0] if received else signal.SIGINT
        raise Interrupted(on_interrupt(), _EXIT_CODES[number]) from None
