"""The end of a runner is detected whatever is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
from pathlib import Path

import pytest

from codealign.api.runner.v1 import runner_pb2
from codealign.api.sandbox.v1 import sandbox_pb2 as pb
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


async def test_whoever_still_holds_a_dead_runners_stream_keeps_nobody_waiting(tmp_path: Path) -> None:
    left = tmp_path / "left"
    hello = runner_pb2.AttachResponse()
    hello.hello.runner.CopyFrom(pb.Runner(name="a", slots=1, state=pb.RUNNER_STATE_READY))
    body = hello.SerializeToString()
    program = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        f"open({str(left)!r}, 'w').write(str(child.pid))\n"
        f"sys.stdout.buffer.write({struct.pack('>I', len(body)) + body!r})\n"
        "sys.stdout.flush()\n"
        "sys.stdin.buffer.read()\n"
    )
    runner = await piped.start([sys.executable, "-c", program], "a", lambda: None, seconds=20)
    job = asyncio.create_task(runner.execute(pb.ExecuteRequest()))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(runner.close(), 20)
    with pytest.raises(RunnerLost):
        await job
    os.kill(int(left.read_text()), signal.SIGKILL)
    await asyncio.sleep(0.2)
