"""Which of gVisor's platforms to run on: those that isolate are tried, the faster one is remembered.

systrap is gVisor's default and faster on most machines; inside some virtual machines ptrace executes half as many
programs again per second. kvm is never used: it hangs where virtualisation is nested.
"""

import asyncio
import json
import platform
import time
from pathlib import Path

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.common.logs import get_logger
from codealign.sandbox import validate
from codealign.sandbox.pool import missing_walls
from codealign.sandbox.runners.attached import AttachedRunner, RunnerLost
from codealign.sandbox.runners.runsc import PLATFORMS, RunscBackend

_PROGRAMS = 12

log = get_logger(__name__)


async def _seconds_each(runner: AttachedRunner) -> float:
    program = pb.Program(code="def double(n):\n    return 2 * n\n", tests="assert double(2) == 4\n")
    request = validate.checked(pb.ExecuteRequest(program=program), runner.description.profiles[0])
    await runner.execute(request)
    started = time.monotonic()
    for _ in range(_PROGRAMS):
        await runner.execute(request)
    return (time.monotonic() - started) / _PROGRAMS


class AutomaticPlatform:
    """Starts runners on the configured platform, or on the best that this machine has."""

    def __init__(self, backend: RunscBackend, configured: str, cache: Path) -> None:
        """Chooses nothing yet.

        Args:
            backend: Starts a runner on a given platform.
            configured: "auto", or a platform's name.
            cache: The project's cache folder; the choice is kept there.
        """
        self._backend = backend
        self._chosen = "" if configured == "auto" else configured
        self._file = cache / "platform.json"
        self._lock = asyncio.Lock()

    async def start(self) -> AttachedRunner:
        """Starts a runner.

        Raises:
            RunnerLost: No platform works here; says what each said.
        """
        async with self._lock:
            if not self._chosen:
                self._chosen = self._remembered()
            if not self._chosen:
                return await self._choose()
        return await self._backend.start(self._chosen)

    def _machine(self) -> str:
        return f"{platform.node()} {platform.release()} runsc {self._backend.runsc.release}"

    def _remembered(self) -> str:
        try:
            record = json.loads(self._file.read_text())
            name = record["platform"] if record["machine"] == self._machine() else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return name if name in PLATFORMS else ""

    async def _choose(self) -> AttachedRunner:
        """Tries them all; the winner's runner is kept. One that is refused is kept only if nothing better is there."""
        best: AttachedRunner | None = None
        best_seconds = float("inf")
        faults: list[str] = []
        for name in PLATFORMS:
            try:
                runner = await self._backend.start(name)
                proved = not missing_walls(runner.description)
                seconds = await _seconds_each(runner) if proved else float("inf")
            except RunnerLost as error:
                faults.append(str(error))
                continue
            log.info("platform_tried", platform=name, proved=proved, seconds_each=round(seconds, 4))
            if best is None or seconds < best_seconds:
                best, worse, best_seconds = runner, best, seconds
            else:
                worse = runner
            if worse is not None:
                await worse.close()
        if best is None:
            raise RunnerLost(f"no platform of gVisor works on this machine: {'; '.join(faults)}")
        if best_seconds < float("inf"):
            self._chosen = best.description.platform
            record = {"machine": self._machine(), "platform": self._chosen}
            self._file.write_text(json.dumps(record))
        return best
