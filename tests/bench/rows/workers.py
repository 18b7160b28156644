"""Workers that execute programs for a number of seconds and report how long each took."""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from tests.bench.rows import driver
from tests.bench.rows.programs import Program

DRIVER = Path(driver.__file__).read_text()
BASE = str(getattr(sys, "_base_executable", sys.executable))
"""The interpreter behind the virtual environment, which runners use."""
_ANSWER_SECONDS = 120.0


class RowFailed(Exception):
    """A row cannot be measured; the message says why."""


@dataclass
class Sample:
    """Measurements of one worker in one round."""

    latencies: list[float]
    """Seconds of each execution."""
    faults: list[str] = field(default_factory=list)
    """The first few executions with a wrong result."""


class Worker(Protocol):
    """One caller."""

    def run(self, seconds: float, programs: Sequence[Program]) -> Sample:
        """Execute the programs in turn, for at least this number of seconds."""
        ...


class Driver:
    """A measuring process: `driver.py` in any environment."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts it.

        Args:
            command: Ends in what the process is to do.
            environment: Its environment. None: ours.
            user: A user and group id. None: ours.
            closed: Called when it has ended.
        """
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._closed = closed
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd="/",
            # Ctrl-C must reach only the parent, which stops the process in order.
            start_new_session=True,
        )

    def run(self, seconds: float, programs: Sequence[Program]) -> Sample:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(self._question(seconds, programs))
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], seconds + _ANSWER_SECONDS)[0]:
                raise RowFailed("it does not answer")
            return self._answer(self.process.stdout)
        except (OSError, EOFError, ValueError) as error:
            raise RowFailed(f"it ended: {self._last_words() or error}") from None

    def close(self) -> None:
        """Stop the process and wait until it is gone."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said.close()
        self._closed()

    def _question(self, seconds: float, programs: Sequence[Program]) -> bytes:
        return marshal.dumps((seconds, [program.text for program in programs]), 4)

    def _answer(self, stream: IO[bytes]) -> Sample:
        return Sample(*marshal.load(stream))

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace").strip()[-500:]


class TextDriver(Driver):
    """A driver that is not Python: it reads a line with seconds and answers with a line of microseconds."""

    def _question(self, seconds: float, programs: Sequence[Program]) -> bytes:
        return f"{seconds}\n".encode()

    def _answer(self, stream: IO[bytes]) -> Sample:
        line = stream.readline()
        if not line:
            raise EOFError
        return Sample([int(microseconds) / 1e6 for microseconds in line.split()])


def plain(python: str, *arguments: str, user: int | None = None) -> Driver:
    """Start `driver.py` without a sandbox.

    Args:
        python: The interpreter that it runs in.
        arguments: Its mode, and what belongs to it.
        user: See `Driver`.
    """
    isolated = ["-I", "-S"] if python != sys.executable else ["-I"]
    return Driver([python, *isolated, "-c", DRIVER, *arguments], user=user, environment=dict(os.environ))
