"""The training program as a child process, which ends with this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import Self

from codealign.common.logs import get_logger
from codealign.trainer.sft.job import Job

log = get_logger(__name__)

# Variables that the program does not need and must not see: addresses, certificates, tokens.
_KEPT_BACK = ("CODEALIGN_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_LOG_TAIL_BYTES = 65_536
_ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\):.*?\n\s*exitcode\s*: -(\d+) ", re.DOTALL)
"""The part of torchrun's report, at the log's end, that says by which signal a worker was killed first."""
_REPORT = re.compile(r"^E\d{4} .* failed \(exitcode: ", re.MULTILINE)
"""The first line that torchrun prints about workers that failed for good."""
_OF_TORCHRUN = re.compile(r"[WEI]\d{4} ")
_RANK = re.compile(r"\[rank\d+\]: *")


def program_environment(*kept_back: str) -> dict[str, str]:
    """Return this process's environment without variables that the program must not see.

    Args:
        kept_back: Prefixes of further variables to remove.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith((*_KEPT_BACK, *kept_back))}


class TrainingProcess:
    """A running training program, including torchrun and its workers."""

    def __init__(self, process: asyncio.subprocess.Process, log_file: Path, log_start: int = 0) -> None:
        self._process = process
        self._log_file, self._log_start = log_file, log_start

    @classmethod
    async def start(cls, job: Job, job_file: Path) -> Self:
        """Start the program on a job file; append its output to the job's log."""
        log_file = job.output / "log.txt"
        with log_file.open("ab") as output:
            log_start = output.tell()  # what is before it is of earlier processes
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
        return cls(process, log_file, log_start)

    @property
    def status(self) -> int:
        """The exit status of the ended program; negative for a signal."""
        assert self._process.returncode is not None, "the program has not ended"
        return self._process.returncode

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
        """Return the last line that the program printed; with several workers, one of theirs, not of torchrun's."""
        text = self._log_tail()
        if reports := list(_REPORT.finditer(text)):
            text = text[: reports[-1].start()]
        lines = [_RANK.sub("", line).strip() for line in text.split("\n") if not _OF_TORCHRUN.match(line)]
        return next((line for line in reversed(lines) if line), "")

    def worker_signal(self) -> int:
        """Return the signal that killed a worker under torchrun, which itself ends with status 1 then. 0: none."""
        found = _ROOT_CAUSE.findall(self._log_tail())
        return int(found[-1]) if found else 0

    def _log_tail(self) -> str:
        try:
            with self._log_file.open("rb") as file:
                file.seek(max(self._log_start, self._log_file.stat().st_size - _LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""
