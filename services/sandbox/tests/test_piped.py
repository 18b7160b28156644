"""A runner's end is noticed whatever is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from codealign.sandbox.runners import piped
from codealign.sandbox.runners.attached import RunnerLost


async def test_whoever_still_holds_a_dead_runners_standard_error_keeps_nobody_waiting(tmp_path: Path) -> None:
    closed: list[str] = []
    left = tmp_path / "left"
    leaves_one_behind = f"echo gone >&2; sleep 60 >/dev/null </dev/null & echo $! >{left}; exit 3"
    start = piped.start(["/bin/sh", "-c", leaves_one_behind], "a", lambda: closed.append("a"), seconds=20)
    with pytest.raises(RunnerLost, match="exit code 3: gone"):
        await asyncio.wait_for(start, 20)
    assert closed == ["a"]
    os.kill(int(left.read_text()), signal.SIGKILL)
    await asyncio.sleep(0.2)  # asyncio closes its pipe then
