"""The training program as a child process, which ends with this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Self

from codealign.common.logs import get_logger
from codealign.trainer.sft.job import Job

log = get_logger(__name__)

# Variables that the program does not need and must not see: addresses, certificates, tokens.
_KEPT_BACK = ("CODEALIGN_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_LOG_TAIL_BYTES = 4000


def program_environment(*kept_back: str) -> dict[str, str]:
    """Return this process's environment without variables that the program must not see.

    Args:
        kept_back: Prefixes of further variables to remove.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith((*_KEPT_BACK, *kept_back))}


class TrainingProcess:
    """A running training program, including torchrun and its workers."""

    def __init__(self, process: asyncio.subprocess.Process, log_file: Path) -> None:
        self._process = process
        self._log_file = log_file

    @classmethod
    async def start(cls, job: Job, job_file: Path) -> Self:
        """Start the program on a job file; append its output to the job's log."""
        log_file = job.output / "log.txt"
        with log_file.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "codealign.trainer.sft",
                str(job_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**program_environment(), "CODEALIGN_TRAINER_FOLLOW_PARENT": str(os.getpid())},
                start_new_session=True,
            )
        log.info("training_process_started", training_id=job.training_id, pid=process.pid)
        return cls(process, log_file)

    async def wait(self, seconds: float) -> int | None:
        """Wait for the exit status (negative for a signal); return None after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        return None

    async def stop(self) -> None:
        """Kill the program and its children; checkpoints are atomic, so this is safe at any time."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def last_words(self) -> str:
        """Return the last line that the program printed."""
        try:
            with self._log_file.open("rb") as file:
                file.seek(max(0, self._log_file.stat().st_size - _LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
