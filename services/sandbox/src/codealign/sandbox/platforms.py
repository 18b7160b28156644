"""Selects gVisor's platform: tries those that isolate and remembers the fastest one.

systrap is gVisor's default and faster on most machines; inside some virtual machines ptrace executes 50% more programs
per second. Which one is fastest depends on how many sandboxes share the processors, so as many are tried as will run.
kvm is never used, because it hangs under nested virtualisation.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.logs import get_logger
from codealign.sandbox import gvisor, validate
from codealign.sandbox.pool import objection
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost

_PROGRAMS = 12

log = get_logger(__name__)


class Backend(Protocol):
    """Starts runners on a given platform."""

    @property
    def runsc(self) -> gvisor.Runsc:
        """The runsc binary."""
        ...

    async def start(self, platform: str) -> AttachedRunner:
        """Start a runner and wait for its hello.

        Raises:
            RunnerLost: It did not start.
        """
        ...


_FAILURES = 3
"""Consecutive failed starts before a platform is given up. A single one may have been killed or short of memory."""


async def _seconds_each(runners: Sequence[AttachedRunner]) -> float:
    """Return the seconds that a program takes while all runners execute programs."""
    program = pb.Program(code="def double(n):\n    return 2 * n\n", tests="assert double(2) == 4\n")
    request = validate.checked(pb.ExecuteRequest(program=program))

    async def execute(runner: AttachedRunner) -> None:
        for _ in range(_PROGRAMS):
            await runner.execute(request)

    await asyncio.gather(*(runner.execute(request) for runner in runners))
    started = time.monotonic()
    await asyncio.gather(*map(execute, runners))
    return (time.monotonic() - started) / _PROGRAMS


def _processor() -> str:
    """Return the model name from /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _isolates(runner: AttachedRunner) -> bool:
    return not objection(runner.description, pb.ISOLATION_GVISOR)


class AutomaticPlatform:
    """Starts runners on the configured platform, or on the best one for this machine.

    Args:
        backend: Starts a runner on a given platform.
        configured: "auto", or the name of a platform.
        cache: The project's cache directory, which also stores the choice.
        runners: Number of runners that will share the processors.
    """

    def __init__(self, backend: Backend, configured: str, cache: Path, runners: int = 1) -> None:
        self._backend = backend
        self._runners = min(runners, os.cpu_count() or 1)
        self._automatic = configured == "auto"
        self._chosen = "" if self._automatic else configured
        self._failures = 0
        self._file = cache / "platform.json"
        self._lock = asyncio.Lock()

    async def start(self) -> AttachedRunner:
        """Start a runner.

        A platform chosen earlier that no longer works is forgotten, so that the next start tries all of them.

        Raises:
            RunnerLost: No runner started; if all platforms were tried, the message has the fault of each.
        """
        async with self._lock:
            if not self._chosen:
                self._chosen = self._remembered()
            if not self._chosen:
                return await self._choose()
        chosen = self._chosen
        try:
            runner = await self._backend.start(chosen)
        except RunnerLost:
            self._failed(chosen)
            raise
        if _isolates(runner):
            self._failures = 0
        else:
            self._failed(chosen)
        return runner

    def _machine(self) -> dict[str, str]:
        """Return what the choice depends on. It is repeated on another machine or with another gVisor."""
        runsc = self._backend.runsc
        return {
            "host": platform.node(),
            "kernel": f"{platform.release()} {platform.version()} {platform.machine()}",
            "processors": f"{os.cpu_count()} {_processor()}",
            "runsc": f"{runsc.release} {runsc.path}",
            "root": str(os.geteuid() == 0),
            "runners": str(self._runners),
        }

    def _remembered(self) -> str:
        try:
            record = json.loads(self._file.read_text())
            name = record["platform"] if record["machine"] == self._machine() else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        if name not in self._backend.runsc.platforms:
            return ""
        log.info("platform_remembered", platform=name)
        return str(name)

    def _remember(self, name: str) -> None:
        self._chosen = name
        partial = self._file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"machine": self._machine(), "platform": name}, indent=1))
        partial.replace(self._file)

    def _failed(self, name: str) -> None:
        self._failures += 1
        if self._automatic and self._chosen == name and self._failures >= _FAILURES:
            log.warning("platform_forgotten", platform=name, reason="no sound runner starts on it any more")
            self._chosen, self._failures = "", 0
            self._file.unlink(missing_ok=True)

    async def _choose(self) -> AttachedRunner:
        """Try all platforms and keep the fastest one's runner. Keep a refused runner only if there is no better one."""
        best: AttachedRunner | None = None
        best_seconds = float("inf")
        faults: list[str] = []
        for name in self._backend.runsc.platforms:
            try:
                runner, seconds = await self._try(name)
            except RunnerLost as error:
                faults.append(str(error))
                continue
            log.info("platform_tried", platform=name, proved=seconds < float("inf"), seconds_each=round(seconds, 4))
            if best is None or seconds < best_seconds:
                best, worse, best_seconds = runner, best, seconds
            else:
                worse = runner
            if worse is not None:
                await worse.close()
        if best is None:
            raise RunnerLost(
                f"no gVisor platform works on this machine with {self._backend.runsc.path}: {'; '.join(faults)}"
            )
        if best_seconds < float("inf"):
            self._remember(best.description.platform)
            log.info("platform_chosen", platform=self._chosen, seconds_each=round(best_seconds, 4))
        return best

    async def _try(self, name: str) -> tuple[AttachedRunner, float]:
        """Start as many runners as will run, and return one with the seconds per program; infinity: not isolated.

        Raises:
            RunnerLost: One did not start or ended.
        """
        started = await asyncio.gather(
            *(self._backend.start(name) for _ in range(self._runners)), return_exceptions=True
        )
        runners = [each for each in started if isinstance(each, AttachedRunner)]
        try:
            for each in started:
                if isinstance(each, BaseException):
                    raise each
            seconds = await _seconds_each(runners) if all(map(_isolates, runners)) else float("inf")
        except BaseException:
            await asyncio.gather(*(runner.close() for runner in runners), return_exceptions=True)
            raise
        first, *others = sorted(runners, key=_isolates)
        await asyncio.gather(*(runner.close() for runner in others))
        return first, seconds
